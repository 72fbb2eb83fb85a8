import type { Config } from '../config/types.ts'
import { planBudget } from '../proxy/budget.ts'
import { type Finding, ok, wrong } from './finding.ts'

const MINIMUM = 1_024 // what systems grant by default; less was set on purpose, or by mistake

export interface DescriptorLimit {
  readonly limit: number
  /** `limpid (pid 17)`, or `this process` while it does not run. */
  readonly holder: string
  readonly runCommand: string
}

export function descriptorFinding(config: Config, { limit, holder, runCommand }: DescriptorLimit): Finding {
  const { flows } = planBudget(config.limits, limit)
  const what = `${holder} may hold ${limit} descriptors (RLIMIT_NOFILE): ${flows} flows at once`
  if (limit >= MINIMUM) return ok('descriptors', what)
  return wrong(
    'descriptors',
    what,
    `as root: prlimit --nofile=65536 ${runCommand} (in a systemd unit: LimitNOFILE=65536)`,
  )
}

/** From the text of /proc/PID/limits; undefined when it has no such line. */
export function parseDescriptorLimit(text: string): number | undefined {
  const value = /^Max open files\s+(\d+|unlimited)/m.exec(text)?.[1]
  if (value === undefined) return undefined
  return value === 'unlimited' ? 1_048_576 /* fs.nr_open's default */ : Number(value)
}
