import { predictKnows } from '../ruleset/knows.ts'
import { runLab } from './lab.ts'

/** The lab with a prophet who is wrong about the server, for tests: everything observed is real. */
process.exitCode = await runLab({
  scenarios: process.argv.slice(2),
  predict: (listener, own) =>
    predictKnows(listener, own).map((row) => ({ ...row, serverSees: 'client', verdict: 'Z knows Y by another port' })),
})
