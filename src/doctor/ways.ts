import { LimpidError } from '../errors.ts'
import type { Family } from '../net/address.ts'
import { familyOf } from '../net/address.ts'
import { familySwitch } from '../ruleset/ip-commands.ts'
import { firstLine, mustRun, run } from '../sys/program.ts'

/** Where the kernel would send a packet. */
export type Way =
  | { readonly kind: 'local' }
  | { readonly kind: 'by'; readonly dev: string; readonly via: string | undefined }
  | { readonly kind: 'none'; readonly why: string }

export interface Asked {
  readonly to: string
  /** With both: as if the packet had come in by that interface. */
  readonly from?: string
  readonly iif?: string
  readonly mark?: number
}

/** Asks the kernel (`ip route get`). What rp_filter refuses is `none` too; the words for it differ between kernels. */
export async function wayTo({ to, from, iif, mark }: Asked): Promise<Way> {
  const { code, stdout, stderr } = await run('ip', [
    ...['-j', familySwitch(familyOf(to)), 'route', 'get', to],
    ...(from === undefined ? [] : ['from', from]),
    ...(iif === undefined ? [] : ['iif', iif]),
    ...(mark === undefined ? [] : ['mark', `${mark}`]),
  ])
  if (code !== 0) {
    return { kind: 'none', why: (firstLine(stderr) ?? 'no route').replace(/^RTNETLINK answers: /, '') }
  }
  const [route] = JSON.parse(stdout) as { type?: string; dev?: string; gateway?: string }[]
  if (route?.type === 'local') return { kind: 'local' }
  if (route?.dev === undefined) return { kind: 'none', why: route?.type ?? 'no route' }
  return { kind: 'by', dev: route.dev, via: route.gateway }
}

export interface MainRoute {
  readonly family: Family
  readonly destination: string
  readonly dev: string
}

/**
 * Routes of the main table that lead to others, without link-local and multicast ones. Those beside the default route are
 * only listed when there is none: a router may have a million of them.
 */
export async function readMainRoutes(family: Family): Promise<MainRoute[]> {
  const defaults = await list(family, ['default'])
  return defaults.length > 0 ? defaults : await list(family, ['table', 'main'])
}

/** The networks that links are connected to. */
export async function connectedNetworks(family: Family): Promise<MainRoute[]> {
  return await list(family, ['table', 'main', 'proto', 'kernel'])
}

async function list(family: Family, which: readonly string[]): Promise<MainRoute[]> {
  const text = await mustRun('ip', ['-j', familySwitch(family), 'route', 'show', ...which]).catch((error: unknown) => {
    if (error instanceof LimpidError && /not supported|does not exist/.test(error.message)) return '[]'
    throw error
  })
  const found = JSON.parse(text.trim() === '' ? '[]' : text) as RouteJson[]
  const usable = found.filter(({ type, flags }) => (type ?? 'unicast') === 'unicast' && !flags?.includes('dead'))
  return usable.flatMap(({ dst, dev, nexthops }) =>
    [dev, ...(nexthops ?? []).map((hop) => hop.dev)]
      .filter((name) => name !== undefined && name !== 'lo')
      .map((name) => ({ family, destination: dst, dev: name! }))
      .filter(({ destination }) => !/^(fe80|ff00):/.test(destination)),
  )
}

interface RouteJson {
  readonly type?: string
  readonly dst: string
  readonly dev?: string
  readonly flags?: readonly string[]
  readonly nexthops?: readonly { readonly dev?: string }[]
}
