// Loads the chains of one tproxy listener with a cleaner beside them, says READY, and stays. Run by tests, which kill it.

import { hostFacts } from '../sys/host.ts'
import { Cleaner } from './cleaner.ts'
import { allInterceptions, asChains, guardsOf, listenerFor, scriptsOf } from './iptables.fixture.ts'
import { loadChains } from './iptables-commands.ts'

const onDown = process.argv[2] === 'closed' ? 'closed' : 'open'
const interceptions = allInterceptions([listenerFor('tproxy', 'forwarded', { onDown })], hostFacts())
const scripts = scriptsOf(interceptions).map(asChains)
const cleaner = Cleaner.start(scripts, () => process.exit(3))
for (const guard of guardsOf(interceptions)) await loadChains(asChains(guard))
for (const script of scripts) await loadChains(script)
process.stdout.write(`READY ${cleaner.process.pid}\n`)
setInterval(() => {}, 60_000)
