import type { Endpoint, Family } from '../net/address.ts'
import { EINVAL, EOPNOTSUPP } from './errno.ts'
import type { EventLoop, EventTarget, Watch } from './loop.ts'
import { type SocketOption, setOption } from './options.ts'
import type { Ring } from './ring.ts'
import { domainOf, sharedSockaddr } from './sockaddr.ts'
import { bindSocket, closeFd, NEW_TCP_SOCKET, openTcp } from './socket.ts'

/** A TCP socket as it is wanted, before connect(). */
export interface SocketPlan {
  readonly family: Family
  /** Set in their order, before bind(). */
  readonly options: readonly SocketOption[]
  readonly bind: Endpoint | undefined
  /** What it is watched for: its target has no event before connect(), for that is asked when events are fetched (ep_item_poll, fs/eventpoll.c). */
  readonly events: number
  readonly target: EventTarget
}

/** Of a plan: its options, bind() and the watch. More than any has. */
const MOST_CALLS = 16

/** Before Linux 6.11 rings can do less, and would be asked in vain. */
let ringIsAble = true

/**
 * Makes a socket for each plan: where there is a ring all are opened with one system call, and made ready with another. Undefined stands
 * for one that could not be had that way: openSocket() does it by itself, and says what is wrong.
 */
export function openSockets(plans: readonly SocketPlan[], loop: EventLoop): (Watch | undefined)[] {
  const ring = ringIsAble ? loop.ring : undefined
  if (ring === undefined) return plans.map(() => undefined)
  const most = Math.floor(ring.capacity / MOST_CALLS)
  const all: (Watch | undefined)[] = []
  for (let at = 0; at < plans.length; at += most) all.push(...openTogether(plans.slice(at, at + most), loop, ring))
  return all
}

/** Makes one, with a system call for each step. @throws SyscallError */
export function openSocket({ family, options, bind, events, target }: SocketPlan, loop: EventLoop): Watch {
  const fd = openTcp(family)
  try {
    for (const option of options) setOption(fd, option)
    if (bind !== undefined) bindSocket(fd, bind)
    return loop.add(fd, events, target)
  } catch (error) {
    closeFd(fd)
    throw error
  }
}

function openTogether(plans: readonly SocketPlan[], loop: EventLoop, ring: Ring): (Watch | undefined)[] {
  for (const { family } of plans) ring.openSocket(domainOf(family), NEW_TCP_SOCKET)
  ring.run()
  const fds = ring.results.slice(0, plans.length)
  const watches = plans.map((plan, i) => (fds[i]! < 0 ? undefined : queueSteps(fds[i]!, plan, loop, ring)))
  ring.run()
  let at = 0
  return watches.map((watch, i) => {
    if (watch === undefined) return undefined
    const end = at + callsOf(plans[i]!)
    let failed = 0
    for (; at < end; at++) if (ring.results[at]! < 0) failed ||= ring.results[at]!
    if (failed === 0) return watch
    if (failed === -EOPNOTSUPP || failed === -EINVAL) ringIsAble = false
    loop.close(watch)
    return undefined
  })
}

function queueSteps(fd: number, { options, bind, events, target }: SocketPlan, loop: EventLoop, ring: Ring): Watch {
  for (const { level, option, value } of options) ring.setOption(fd, level, option, value)
  if (bind !== undefined) ring.bind(fd, sharedSockaddr(bind))
  return loop.queueAdd(ring, fd, events, target)
}

function callsOf({ options, bind }: SocketPlan): number {
  return options.length + (bind === undefined ? 1 : 2)
}
