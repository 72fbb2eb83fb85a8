// npm run soak -- dns [COUNT [SEED]]: malformed datagrams through real sockets at the DNS of `limpid run`; 1,000,000 unless COUNT says otherwise.
// npm run soak -- udp [SECONDS]: 100,000 datagrams a second, each from another client, beside running sessions; 10 s.
import { spawn } from 'node:child_process'
import { constants } from 'node:os'
import { ensureNamespaces } from './namespaces.mjs'
import { tell } from './say.mjs'
import { ROOT, setUp } from './setup.mjs'

const LONGEST_FLOOD_SECONDS = 60
const [what, count = what === 'udp' ? '10' : '1000000', seed = `${Date.now() % 2 ** 31}`] = process.argv.slice(2)
const isNumber = (text) => /^[1-9]\d{0,9}$/.test(text)
const isUsage = (what === 'dns' && isNumber(count)) || (what === 'udp' && Number(count) <= LONGEST_FLOOD_SECONDS)
if (!isUsage || !isNumber(count) || !isNumber(seed)) {
  process.stderr.write('usage: npm run soak -- dns [COUNT [SEED]] | udp [SECONDS]\n')
  process.exit(2)
}
setUp('test')
ensureNamespaces()
tell(what === 'dns' ? `${count} datagrams of seed ${seed} …` : `a flood of ${count} s …`)
const program =
  what === 'dns'
    ? [`${ROOT}/dist/apps/dns/flood-process.fixture.js`, count, seed]
    : ['--test', '--test-reporter=spec', `${ROOT}/dist/proxy/udp-flood.lab.test.js`]
const env = { ...process.env, ...(what === 'udp' ? { LIMPID_SOAK_SECONDS: count } : {}) }
const soak = spawn(process.execPath, program, { stdio: 'inherit', env })
for (const signal of ['SIGINT', 'SIGTERM', 'SIGHUP']) process.on(signal, () => soak.kill(signal))
soak.once('exit', (code, signal) => {
  process.exitCode = code ?? 128 + constants.signals[signal]
})
