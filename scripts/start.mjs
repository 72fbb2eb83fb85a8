// npm start: the lab, with the arguments passed on.
import { spawn } from 'node:child_process'
import { constants } from 'node:os'
import { ROOT, setUp } from './setup.mjs'

setUp('start')
const lab = spawn(process.execPath, [`${ROOT}/bin/limpid`, 'lab', ...process.argv.slice(2)], { stdio: 'inherit' })
// a terminal signals the whole group; what is sent to us alone is passed on
for (const signal of ['SIGINT', 'SIGTERM', 'SIGHUP']) process.on(signal, () => lab.kill(signal))
lab.once('exit', (code, signal) => {
  process.exitCode = code ?? 128 + constants.signals[signal]
})
