import { predictKnows } from '../ruleset/knows.ts'
import { datagramLine } from './frame-capture.ts'
import { runLab } from './lab.ts'

/** The lab with prophets who are wrong about the server, for tests: everything observed is real. */
process.exitCode = await runLab({
  scenarios: process.argv.slice(2),
  predict: {
    knows: (listener, own) =>
      predictKnows(listener, own).map((row) => ({
        ...row,
        serverSees: 'client',
        verdict: 'Z knows Y by another port',
      })),
    capture: (from, to, bytes) => datagramLine({ ...from, port: from.port + 1 }, to, bytes),
  },
})
