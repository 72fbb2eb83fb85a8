import { EPOLLIN, type EventLoop } from '../sys/loop.ts'
import { setNoDelay, setReuseAddress } from '../sys/options.ts'
import { acceptConnection, bindSocket, listenSocket, openTcp } from '../sys/socket.ts'

const BACKLOG = 4096

/** Listens on a port of all IPv4 addresses; `serve` takes each connection's descriptor. Returns what ends the listening. */
export function listenOn(loop: EventLoop, port: number, serve: (fd: number) => void): () => void {
  const fd = openTcp(4)
  setReuseAddress(fd)
  setNoDelay(fd) // accepted sockets inherit it
  bindSocket(fd, { address: '0.0.0.0', port })
  listenSocket(fd, BACKLOG)
  const watch = loop.take(fd, EPOLLIN, {
    onEvents: () => {
      for (;;) {
        const accepted = acceptConnection(fd)
        if (typeof accepted === 'number') return
        serve(accepted.fd)
      }
    },
  })
  return () => loop.close(watch)
}
