import type { Source } from '../config/types.ts'
import type { Endpoint } from '../net/address.ts'
import { SyscallError } from '../sys/errno.ts'
import { SOCKADDR_WORDS } from '../sys/sockaddr.ts'
import { refusalOf } from './admission.ts'
import { tellClient } from './client-errors.ts'
import { decideSession, type SessionDecision } from './decide-session.ts'
import { dialUdp } from './dial-udp.ts'
import type { DropReason } from './drops.ts'
import type { ReplyOutlet } from './reply-outlet.ts'
import { endsOf, QUERY_PORTS, type SessionStart } from './session-start.ts'
import { type DialSource, dialSource } from './source.ts'
import type { UdpContext } from './udp-context.ts'
import { UdpSession } from './udp-session.ts'

/**
 * Opens a session: decides → admits → finds the way of its answers → dials. A reason where there can be none: the datagram is dropped.
 * Room has been made before. `held`: nothing is decided yet, and the datagrams are kept.
 */
export function openSession(wanted: SessionStart, context: UdpContext): UdpSession | DropReason | 'held' {
  const decided = decideSession(wanted, context, (decided, datagrams) => {
    if (typeof decided === 'string') context.countDrop(decided, datagrams)
    else openHeld(wanted, decided, context)
  })
  return typeof decided === 'string' ? decided : openOrLeave(wanted, decided, context)
}

/** What had been held is decided; the room that was made for it may be taken by now. */
function openHeld(wanted: SessionStart, decided: SessionDecision, context: UdpContext): void {
  const reason = makeRoom(wanted.client, context)
  if (reason === undefined) openOrLeave(wanted, decided, context)
  else leave(decided, reason, context)
}

function openOrLeave(wanted: SessionStart, decided: SessionDecision, context: UdpContext): UdpSession | DropReason {
  const session = openDecided(wanted, decided, context)
  if (typeof session === 'string') leave(decided, session, context)
  return session
}

/** There will be no session that does, and what was held back for it is lost. */
function leave({ place, share, before }: SessionDecision, reason: DropReason, { countDrop }: UdpContext): void {
  place?.leave()
  share?.leave()
  countDrop(reason, before.length)
}

/** Ends the session that has been idle longest where one has to go; a reason where none may. */
export function makeRoom({ address }: Endpoint, { table, counters, proxy }: UdpContext): DropReason | undefined {
  const oldest = table.whoMustGo(address, proxy.resources.loop.now)
  if (oldest === 'full') return 'session-limit'
  if (oldest === 'client-full') return 'client-limit'
  if (oldest !== undefined) {
    counters.evictions++
    oldest.end('evicted')
  }
  return undefined
}

function openDecided(wanted: SessionStart, decided: SessionDecision, context: UdpContext): UdpSession | DropReason {
  const start = { ...wanted, upstream: decided.upstream }
  const source = sessionSource(start, decided.source, context)
  const refusal = refusalOf({ ...start, source }, context.proxy)
  if (refusal !== undefined) return refusal
  const replyBy =
    start.replyBy ?? context.replies.acquire({ words: start.key, at: SOCKADDR_WORDS }, () => start.originalDst)
  if (replyBy === undefined) return 'reply-address'
  const session = dialSession(start, { decided, source, replyBy }, context)
  if (typeof session === 'string') {
    context.replies.release(replyBy)
    return session
  }
  context.table.add(session)
  if (session.source === 'client-port') context.ends.add(endsOf(session))
  for (const datagram of decided.before) session.sendHeld(datagram)
  return session
}

/**
 * A client on this host has its port itself. If its socket allows others there (SO_REUSEADDR), ours would be bound, and take the
 * answers that are meant for the client: round and round. And where two destinations have one upstream, two sockets with the
 * client's port would have the same ends: the kernel lets them, and gives all answers to one.
 */
function sessionSource({ client, upstream }: SessionStart, source: Source, context: UdpContext): DialSource {
  const { proxy, counters } = context
  if (source !== 'client-port') return dialSource(source, client)
  const isHere = proxy.own.has(client.address, proxy.resources.loop.now)
  if (!isHere && !context.ends.has(endsOf({ client, upstream }))) return dialSource('client-port', client)
  counters.sessionPortFallbacks++
  return dialSource('client', client)
}

function dialSession(
  start: SessionStart,
  { decided, source, replyBy }: { decided: SessionDecision; source: DialSource; replyBy: ReplyOutlet },
  context: UdpContext,
): UdpSession | DropReason {
  const { counters, proxy } = context
  const isStream = !QUERY_PORTS.has(start.originalDst.port)
  // an app looks at each datagram by itself, not at trains
  const dialled = dialUdp(start.upstream, {
    source,
    mark: proxy.mark | decided.mark,
    isStream: isStream && start.app === undefined,
  })
  if ('errno' in dialled) {
    start.app?.onUnreachable(start.upstream)
    tellClient(start, dialled.errno, context)
    return 'dial-failed'
  }
  if (source.kind === 'client-port' && dialled.source === 'client') counters.sessionPortFallbacks++
  try {
    return new UdpSession(start, decided, dialled, replyBy, context)
  } catch (error) {
    if (error instanceof SyscallError) return 'dial-failed' // it could not be watched, and its socket is closed
    throw error
  }
}
