// Installs the rules of the config given as JSON, says READY, and stays. Run by tests, which kill it.
import { hostFacts } from '../sys/host.ts'
import { installRuleset } from './install.ts'
import { planRuleset } from './plan.ts'

const plan = planRuleset(JSON.parse(process.argv[2]!), hostFacts())
await installRuleset(plan, { owner: 'process' })
process.stdout.write('READY\n')
setInterval(() => {}, 60_000)
