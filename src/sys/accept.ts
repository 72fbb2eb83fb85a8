import type { Endpoint } from '../net/address.ts'
import { EAGAIN, ECONNABORTED, EINTR, EINVAL, SyscallError } from './errno.ts'
import type { EventLoop, EventTarget, Watch } from './loop.ts'
import { setResetOnClose } from './options.ts'
import type { Ring } from './ring.ts'
import { decodeSockaddr } from './sockaddr.ts'
import { type Accepted, acceptConnection, NEW_SOCKET_FLAGS } from './socket.ts'

/** What came of taking connections out of a backlog. */
export interface Acceptance {
  readonly accepted: readonly Accepted[]
  /** Why there are no more of them: EAGAIN when the backlog is empty (accept(2) has the others); 0 when nothing speaks against more. */
  readonly errno: number
}

/** Before Linux 6.10 rings cannot accept without waiting, and would be asked in vain. */
let ringAccepts = true

/** Takes up to `most` connections out of the backlog: by one system call where there is a ring. Their sockets are the caller's. */
export function acceptConnections(listenFd: number, most: number, ring: Ring | undefined): Acceptance {
  if (ring !== undefined && ringAccepts && most > 1) {
    const taken = acceptTogether(listenFd, Math.min(most, ring.capacity), ring)
    if (taken.errno !== EINVAL) return taken
    ringAccepts = false
  }
  const one = acceptConnection(listenFd)
  return typeof one === 'number' ? { accepted: [], errno: lasting(-one) } : { accepted: [one], errno: 0 }
}

function acceptTogether(listenFd: number, most: number, ring: Ring): Acceptance {
  for (let i = 0; i < most; i++) ring.accept(listenFd, NEW_SOCKET_FLAGS)
  ring.run()
  const accepted: Accepted[] = []
  let errno = 0
  for (let i = 0; i < most; i++) {
    const fd = ring.results[i]!
    if (fd >= 0) accepted.push({ fd, clientAddr: decodeSockaddr(ring.acceptedFrom(i)) })
    else if (errno === 0 || errno === EAGAIN) errno = lasting(-fd)
  }
  return { accepted, errno }
}

/** 0 for what says nothing of the next connection: a signal, or a client that has gone. */
function lasting(errno: number): number {
  return errno === EINTR || errno === ECONNABORTED ? 0 : errno
}

/** An accepted connection whose socket is watched. */
export interface Connection {
  readonly watch: Watch
  readonly clientAddr: Endpoint
}

/** Takes the place of a target that is to come before there can be an event. */
const NOBODY: EventTarget = { onEvents: () => {} }

/**
 * Watches accepted sockets, which it takes: with one system call where there is a ring. Those that cannot be watched are reset and left out
 * (epoll_ctl(2): ENOSPC, ENOMEM). Each watch wants its target before the events are fetched next.
 */
export function watchConnections(accepted: readonly Accepted[], events: number, loop: EventLoop): Connection[] {
  const ring = accepted.length > 1 ? loop.ring : undefined
  if (ring === undefined) return accepted.flatMap((one) => watchOne(one, events, loop))
  const all = accepted.map(({ fd, clientAddr }) => ({ watch: loop.queueAdd(ring, fd, events, NOBODY), clientAddr }))
  ring.run()
  const failed = all.filter((_, i) => ring.results[i]! < 0)
  for (const { watch } of failed) {
    setResetOnClose(watch.fd)
    loop.close(watch)
  }
  return failed.length === 0 ? all : all.filter((one) => !failed.includes(one))
}

function watchOne({ fd, clientAddr }: Accepted, events: number, loop: EventLoop): Connection[] {
  try {
    return [{ watch: loop.take(fd, events, NOBODY), clientAddr }]
  } catch (error) {
    if (error instanceof SyscallError) return [] // it has had its reset
    throw error
  }
}
