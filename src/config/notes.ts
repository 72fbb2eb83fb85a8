import { type Family, familyOf } from '../net/address.ts'
import { literalFamily } from './build.ts'
import { bypassNotes } from './bypass.ts'
import type { Config, ListenerConfig } from './types.ts'

/** What is legal in a configuration, yet may surprise: one line each. */
export function configNotes({ listeners, bypass }: Pick<Config, 'listeners' | 'bypass'>): string[] {
  return [
    ...listenersWithoutFlows(listeners),
    ...listeners.flatMap(familyLeftOut),
    ...listeners.flatMap(localClientPort),
    ...bypassNotes({ listeners, bypass }),
  ]
}

/** The first listener that matches a packet gets it: one with the same conditions as an earlier one gets none. */
function listenersWithoutFlows(listeners: readonly ListenerConfig[]): string[] {
  const lines: string[] = []
  const first = new Map<string, string>()
  for (const listener of listeners) {
    if (listener.intercept === 'none') continue
    const packets = packetsOf(listener)
    const kinds = listener.families.flatMap((family) =>
      listener.paths.flatMap((path) =>
        listener.protocols.map((protocol) => `${family} ${path} ${protocol} ${packets}`),
      ),
    )
    const earlier = kinds.map((kind) => first.get(kind))
    for (const kind of kinds) if (!first.has(kind)) first.set(kind, listener.name)
    if (earlier[0] === undefined || earlier.includes(undefined)) continue
    lines.push(`listener ${listener.name} never gets a flow: listener ${earlier[0]}, before it, matches the same`)
  }
  return lines
}

/** Equal for listeners with equal conditions, in whatever order they were written. */
function packetsOf({ match, exclude, addressedHere }: ListenerConfig): string {
  const conditions = [match, exclude].map((one) =>
    Object.entries(one).map(([key, values]) => [key, values.map((value: unknown) => JSON.stringify(value)).toSorted()]),
  )
  return JSON.stringify([conditions, addressedHere])
}

/** Two sockets of one host cannot have the same address and port. */
function localClientPort({ name, paths, source }: ListenerConfig): string[] {
  if (source !== 'client-port' || !paths.includes('local')) return []
  return [
    `listener ${name}: on the path local the client's own socket has its port: the server sees another port of the same address`,
  ]
}

/** Packets of a family that the listener's source cannot dial with are not taken. */
function familyLeftOut({ name, intercept, families, source, to, listen }: ListenerConfig): string[] {
  const [family] = families
  if (intercept === 'none' || families.length > 1) return []
  if (source === 'proxy') return listensOnOne(name, family!, listen)
  const why = typeof source === 'object' ? `the source ${source.address}` : `"to" ${to?.host ?? ''}`
  const only: Family | undefined = typeof source === 'object' ? familyOf(source.address) : literalFamily(to?.host ?? '')
  if (family !== only) return []
  return [`listener ${name}: IPv${only === 4 ? 6 : 4} passes by untouched: ${why} is IPv${only}`]
}

/** Addresses of one family that somebody wrote; the ones that stand when nobody did are of the families asked for. */
function listensOnOne(name: string, family: Family, listen: ListenerConfig['listen']): string[] {
  const other = family === 4 ? 6 : 4
  const isChosen = listen.some(({ address }) => !UNCHOSEN.has(address))
  return isChosen
    ? [`listener ${name}: IPv${other} passes by untouched: it listens on an IPv${family} address alone`]
    : []
}

const UNCHOSEN = new Set(['127.0.0.1', '::1', '0.0.0.0', '::'])
