// npm run soak -- dns [COUNT [SEED]]: malformed datagrams through real sockets at the DNS of `limpid run`; 1,000,000 unless COUNT says otherwise.
import { spawn } from 'node:child_process'
import { constants } from 'node:os'
import { ensureNamespaces } from './namespaces.mjs'
import { tell } from './say.mjs'
import { ROOT, setUp } from './setup.mjs'

const PROGRAMS = { dns: `${ROOT}/dist/apps/dns/flood-process.fixture.js` }

const [what, count = '1000000', seed = `${Date.now() % 2 ** 31}`] = process.argv.slice(2)
const isNumber = (text) => /^[1-9]\d{0,9}$/.test(text)
if (!Object.hasOwn(PROGRAMS, what) || !isNumber(count) || !isNumber(seed)) {
  process.stderr.write('usage: npm run soak -- dns [COUNT [SEED]]\n')
  process.exit(2)
}
setUp('test')
ensureNamespaces()
tell(`${what}: ${count} datagrams of seed ${seed} …`)
const soak = spawn(process.execPath, [PROGRAMS[what], count, seed], { stdio: 'inherit' })
for (const signal of ['SIGINT', 'SIGTERM', 'SIGHUP']) process.on(signal, () => soak.kill(signal))
soak.once('exit', (code, signal) => {
  process.exitCode = code ?? 128 + constants.signals[signal]
})
