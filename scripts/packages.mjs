// The programs that Limpid runs, and the Debian packages that have them.
import { spawnSync } from 'node:child_process'
import { accessSync, constants } from 'node:fs'
import { stop, tell } from './say.mjs'

/** Program → Debian package. */
const FOR_START = { ip: 'iproute2', ss: 'iproute2', nft: 'nftables', unshare: 'util-linux', mount: 'mount' }
const FOR_TEST = { ...FOR_START, setpriv: 'util-linux', tc: 'iproute2', ps: 'procps' }

/** Without these, tests are skipped that need them, and say so. */
const OPTIONAL_FOR_TEST = {
  'iptables-restore': 'iptables',
  curl: 'curl',
  dig: 'bind9-dnsutils',
  git: 'git',
  gtlsclient: 'ngtcp2-client',
  iperf3: 'iperf3',
  openssl: 'openssl',
  ssh: 'openssh-client',
}

/** The same, but their packages start a service, take the place of one, or are large: only CI installs them by itself. */
const SERVICES_FOR_TEST = {
  chromium: 'chromium',
  chronyd: 'chrony',
  gtlsserver: 'ngtcp2-server',
  haproxy: 'haproxy',
  'nats-server': 'nats-server',
  sshd: 'openssh-server',
}

const SEARCHED = new Set([...(process.env.PATH ?? '').split(':'), '/usr/sbin', '/usr/bin', '/sbin', '/bin'])

/** Sees to it that the programs are there: installs them as root on Debian, else stops with the command to run. */
export function ensurePrograms(purpose) {
  const wanted = purpose === 'test' ? FOR_TEST : FOR_START
  if (purpose === 'test') {
    wishForPrograms(OPTIONAL_FOR_TEST, true)
    wishForPrograms(SERVICES_FOR_TEST, process.env.CI === 'true')
  }
  const missing = Object.keys(wanted).filter((program) => !isInstalled(program))
  if (missing.length === 0) return
  const packages = [...new Set(missing.map((program) => wanted[program]))]
  const what = `${missing.join(', ')} ${missing.length === 1 ? 'is' : 'are'} missing`
  const install = ['install', '-y', '--no-install-recommends', ...packages]
  if (!isInstalled('apt-get')) stop(`${what}; install ${packages.join(', ')} with your package manager`)
  if (process.getuid() !== 0) stop(`${what}; run: sudo apt-get update && sudo apt-get ${install.join(' ')}`)
  tell(`${what}: installing ${packages.join(', ')} …`)
  apt(['update', '-q'], true)
  apt(install, false)
  const still = missing.filter((program) => !isInstalled(program))
  if (still.length > 0) stop(`apt-get brought no ${still.join(', ')}; run: apt-get ${install.join(' ')}`)
}

/** Installs what can be done without, where that is possible and allowed; else says what will be skipped. */
function wishForPrograms(wanted, mayInstall) {
  const isMissing = (program) => !isInstalled(program)
  const missing = Object.keys(wanted).filter(isMissing)
  if (missing.length === 0) return
  const packages = [...new Set(missing.map((program) => wanted[program]))]
  if (mayInstall && isInstalled('apt-get') && process.getuid() === 0) {
    tell(`installing ${packages.join(', ')}, which some tests need …`)
    apt(['update', '-q'], true)
    apt(['install', '-y', '--no-install-recommends', ...packages], true)
  }
  const still = missing.filter(isMissing)
  if (still.length > 0)
    tell(`without ${still.join(', ')} the tests that need ${still.length === 1 ? 'it' : 'them'} are skipped`)
}

function apt(args, mayFail) {
  const env = { ...process.env, DEBIAN_FRONTEND: 'noninteractive' }
  const run = spawnSync('apt-get', args, { env, encoding: 'utf8', stdio: ['ignore', 'pipe', 'pipe'] })
  if (run.status === 0 || mayFail) return // lists from earlier may serve where a mirror does not answer
  process.stderr.write(`${run.stdout}${run.stderr}`)
  stop(`apt-get ${args.join(' ')} failed (above)`)
}

function isInstalled(program) {
  for (const folder of SEARCHED) {
    try {
      accessSync(`${folder}/${program}`, constants.X_OK)
      return true
    } catch {} // not in this one
  }
  return false
}
