import { type Asked, type Way, wayTo } from '../doctor/ways.ts'
import { familyOf } from '../net/address.ts'
import { familySwitch } from '../ruleset/ip-commands.ts'
import { run } from '../sys/program.ts'

/** What the kernel says about a route. */
export type Route = Way & {
  /** unicast, local, broadcast, multicast, anycast; unicast where there is no route. */
  readonly type: string
  /** The address of ours that a socket without one of its own would send from. */
  readonly source: string | undefined
}

export type AskRoute = (asked: Asked) => Promise<Route>

/** Asks it (`ip route get`), which takes no privilege. @throws LimpidError LIMPID_PROGRAM */
export const askRoute: AskRoute = async (asked) => {
  const [way, more] = await Promise.all([wayTo(asked), plainRoute(asked)])
  return { ...way, type: more?.type ?? 'unicast', source: more?.prefsrc }
}

interface RouteJson {
  readonly type?: string
  readonly prefsrc?: string
}

/** Kind and source depend on neither entry nor sender. */
async function plainRoute({ to, mark }: Asked): Promise<RouteJson | undefined> {
  const marked = mark === undefined ? [] : ['mark', `${mark}`]
  const { code, stdout } = await run('ip', ['-j', familySwitch(familyOf(to)), 'route', 'get', to, ...marked])
  return code === 0 ? (JSON.parse(stdout) as RouteJson[])[0] : undefined
}
