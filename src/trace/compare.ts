import type { RulesConfig } from '../config/types.ts'
import { hex } from '../ruleset/policy-routing.ts'
import type { Flow } from './flow.ts'
import type { Observed } from './observed.ts'
import type { Fate, Prediction } from './predict.ts'

const FATES: Readonly<Record<Fate, string>> = {
  delivered: 'delivered to this host',
  forwarded: 'forwarded',
  bridged: 'carried across the bridge',
  sent: 'sent',
  dropped: 'dropped',
}

/** In what the kernel did differently. Pure. */
export function deviations(rules: RulesConfig, flow: Flow, predicted: Prediction, observed: Observed): string[] {
  const found: string[] = []
  const say = (what: string, wanted: string, had: string) => {
    if (wanted !== had) found.push(`${what}: predicted ${wanted}, the kernel: ${had}`)
  }
  if (flow.path !== 'local' && flow.interface !== undefined && observed.interface !== flow.bridgePort) {
    // in the bridge's own hooks a frame comes in on the port
    if (flow.path === 'forwarded') say('interface', flow.interface, observed.interface ?? 'made here')
  }
  say('rule', predicted.takenBy ?? 'none takes it', observed.takenBy ?? 'none takes it')
  if (predicted.outcome === 'taken') {
    const bits = (mark: number) => `${hex(mark & rules.markMask)}/${hex(rules.markMask)}`
    say('mark', bits(predicted.mark), bits(observed.mark))
  }
  say('end', FATES[predicted.fate], `${FATES[observed.fate]}${by(predicted, observed)}`)
  return found
}

/** Which rule dropped it, where that was not expected; where it left. */
function by(predicted: Prediction, { fate, steps, out }: Observed): string {
  if (predicted.fate === fate) return ''
  if (fate !== 'dropped') return out === undefined ? '' : ` by ${out}`
  const drop = steps.findLast(({ verdict }) => verdict === 'drop' || verdict === 'reject')
  return drop === undefined ? ' in routing' : ` by ${drop.where} ${drop.chain}: ${drop.rule}`
}
