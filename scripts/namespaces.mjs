// The lab lives in namespaces of its own. Where the kernel or a container forbids them, say what to change.
import { spawnSync } from 'node:child_process'
import { readFileSync } from 'node:fs'
import { stop } from './say.mjs'

const EX_NOPERM = 77
const UNSHARE = [
  '--user',
  '--map-root-user',
  '--net',
  '--mount',
  '--pid',
  '--fork',
  '--kill-child',
  '--mount-proc',
  'true',
]

/** [sysctl, value that forbids, value to set] */
const SWITCHES = [
  ['kernel.unprivileged_userns_clone', '0', '1'], // Debian's own patch
  ['kernel.apparmor_restrict_unprivileged_userns', '1', '0'], // Ubuntu 23.10 and later
  ['user.max_user_namespaces', '0', '15000'],
  ['user.max_net_namespaces', '0', '15000'],
]

export function ensureNamespaces() {
  const path = `${process.env.PATH ?? ''}:/usr/sbin:/usr/bin:/sbin:/bin`
  const run = spawnSync('unshare', UNSHARE, { encoding: 'utf8', env: { ...process.env, PATH: path }, timeout: 20_000 })
  if (run.status === 0) return
  const why = (run.error?.message ?? run.stderr).trim().replaceAll(/\s*\n\s*/g, ' ')
  const change = SWITCHES.filter(([name, forbids]) => sysctl(name) === forbids).map(
    ([name, , value]) => `${name}=${value}`,
  )
  const cure =
    change.length > 0
      ? `as root, run: sysctl -w ${change.join(' ')}`
      : 'in a container, allow them when it is started (docker run --privileged); else run as root'
  stop(`this user may not make namespaces, which the lab needs (${why}); ${cure}`, EX_NOPERM)
}

function sysctl(name) {
  try {
    return readFileSync(`/proc/sys/${name.replaceAll('.', '/')}`, 'utf8').trim()
  } catch {
    return undefined // this kernel has no such switch
  }
}
