import { expectedText } from '../config/problem.ts'
import { PREFIX } from '../config/values.ts'
import { LimpidError } from '../errors.ts'
import { formatPrefix, type Prefix } from '../net/prefix.ts'
import type { ControlHandlers } from './control.ts'
import type { BypassedPrefix, BypassOutcome, KernelBypass } from './kernel-bypass.ts'

const MOST_AT_ONCE = 1_000 // of one request

/** What `POST /bypass` and `/unbypass` bring. */
export interface BypassRequest {
  readonly prefixes: readonly string[]
  /** With /bypass: milliseconds; left out: until it is removed. */
  readonly forMs?: number | undefined
}

/** One of what `GET /bypass` answers. */
export type ToldBypass = Omit<BypassedPrefix, 'prefix' | 'within'> & {
  readonly prefix: string
  readonly within: string | undefined
}

export type BypassTold = readonly {
  readonly prefix: string
  readonly outcome: BypassOutcome | 'removed' | 'was not there'
}[]

export interface Controlled {
  stats(): Promise<unknown>
  reload(): Promise<unknown>
  /** Undefined where it has no rules. */
  readonly bypass: KernelBypass | undefined
}

/** What a running Limpid can be asked and told. */
export function controlHandlers({ stats, reload, bypass }: Controlled): ControlHandlers {
  return {
    'GET /stats': stats,
    'POST /reload': reload,
    'GET /bypass': async (): Promise<readonly ToldBypass[]> =>
      (await required(bypass).bypassed()).map(({ prefix, within, ...rest }) => ({
        prefix: formatPrefix(prefix),
        within: within && formatPrefix(within),
        ...rest,
      })),
    'POST /bypass': (body): Promise<BypassTold> => {
      const { prefixes, forMs } = readRequest(body)
      return eachOf(prefixes, (prefix) => required(bypass).bypass(prefix, { forMs }))
    },
    'POST /unbypass': (body): Promise<BypassTold> =>
      eachOf(readRequest(body).prefixes, async (prefix) =>
        (await required(bypass).unbypass(prefix)) ? 'removed' : 'was not there',
      ),
  }
}

function required(bypass: KernelBypass | undefined): KernelBypass {
  if (bypass !== undefined) return bypass
  throw new LimpidError('LIMPID_BYPASS', 'this Limpid has no rules of its own', { cure: 'run it without --no-rules' })
}

/** All at once, so that they are one change of the kernel's. */
async function eachOf(
  prefixes: readonly Prefix[],
  tell: (prefix: Prefix) => Promise<BypassTold[number]['outcome']>,
): Promise<BypassTold> {
  return await Promise.all(
    prefixes.map(async (prefix) => ({ prefix: formatPrefix(prefix), outcome: await tell(prefix) })),
  )
}

/** @throws LimpidError LIMPID_CONTROL */
function readRequest(body: unknown): { readonly prefixes: readonly Prefix[]; readonly forMs: number | undefined } {
  const { prefixes, forMs } = (body ?? {}) as Partial<BypassRequest>
  if (!Array.isArray(prefixes) || prefixes.length === 0 || prefixes.length > MOST_AT_ONCE) {
    throw new LimpidError('LIMPID_CONTROL', `prefixes: expected a list of 1 to ${MOST_AT_ONCE}`)
  }
  if (forMs !== undefined && typeof forMs !== 'number') {
    throw new LimpidError('LIMPID_CONTROL', 'forMs: expected a number of milliseconds')
  }
  return { prefixes: prefixes.map(readPrefix), forMs }
}

function readPrefix(text: unknown): Prefix {
  const prefix = PREFIX.parse(String(text))
  if (prefix !== undefined) return prefix
  throw new LimpidError('LIMPID_CONTROL', `prefixes: ${expectedText(PREFIX.expected, String(text), undefined)}`)
}
