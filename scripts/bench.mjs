// npm run bench: a report; a gate with --compare alone. Takes what it needs besides Limpid from Debian when root; goes on without it else.
import { spawn, spawnSync } from 'node:child_process'
import { constants as access, accessSync } from 'node:fs'
import { constants } from 'node:os'
import { parseArgs } from 'node:util'
import { buildRevision } from './revision.mjs'
import { tell } from './say.mjs'
import { ROOT, setUp } from './setup.mjs'

/** Debian's packages, each with a file by which it is known. */
const WANTED = {
  haproxy: 'haproxy',
  wrk: 'wrk',
  nginx: 'nginx',
  'libnginx-mod-stream': '/usr/lib/nginx/modules/ngx_stream_module.so',
  dnsperf: 'dnsperf',
  'dnsmasq-base': 'dnsmasq',
}
const FOLDERS = [...(process.env.PATH ?? '').split(':'), '/usr/sbin', '/usr/bin', '/sbin', '/bin']
const TOTAL_TIMEOUT_MS = 1_800_000

const isThere = (path, mode) => {
  try {
    accessSync(path, mode)
    return true
  } catch {
    return false
  }
}
const isInstalled = (file) =>
  file.startsWith('/')
    ? isThere(file, access.R_OK)
    : FOLDERS.some((folder) => isThere(`${folder}/${file}`, access.X_OK))

function installWanted() {
  const missing = Object.keys(WANTED).filter((name) => !isInstalled(WANTED[name]))
  if (missing.length === 0) return
  const command = ['install', '-y', '--no-install-recommends', ...missing]
  if (process.getuid() !== 0 || !isInstalled('apt-get')) {
    tell(`to compare with everything, run: sudo apt-get update && sudo apt-get ${command.join(' ')}`)
    return
  }
  tell(
    `installing ${missing.join(', ')} … (Debian starts haproxy and nginx as services; the benchmark does not need them)`,
  )
  const options = { env: { ...process.env, DEBIAN_FRONTEND: 'noninteractive' }, encoding: 'utf8' }
  spawnSync('apt-get', ['update', '-q'], options) // when it fails, lists from earlier may serve
  const run = spawnSync('apt-get', command, options)
  if (run.status !== 0) tell(`apt-get ${command.join(' ')} failed: ${run.stderr.trim().split('\n').at(-1)}`)
}

setUp('start')
const args = process.argv.slice(2)
const isHelp = args.includes('--help') || args.includes('-h')
if (!isHelp) installWanted()
// what is wrong with the arguments is for the benchmark to tell
const { values } = parseArgs({ args, options: { compare: { type: 'string' } }, strict: false })
const revision = typeof values.compare === 'string' && !isHelp ? values.compare : undefined
const built = revision === undefined ? undefined : buildRevision(revision)
process.once('exit', () => built?.remove())

const more = built === undefined ? [] : ['--built', built.folder]
const bench = spawn(process.execPath, [`${ROOT}/dist/bench/bench.js`, ...args, ...more], {
  stdio: 'inherit',
  timeout: TOTAL_TIMEOUT_MS,
})
for (const signal of ['SIGINT', 'SIGTERM', 'SIGHUP']) process.on(signal, () => bench.kill(signal))
bench.once('exit', (code, signal) => {
  process.exitCode = code ?? 128 + constants.signals[signal]
})
