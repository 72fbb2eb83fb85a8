// The servers of Z, as a process of their own: HTTP, and bulk data without end for whoever connects.
import { createServer, type Socket } from 'node:net'
import { eventLoop } from '../sys/loop.ts'
import { serveHttp } from './http-responder.ts'
import { bulkPattern } from './pattern.ts'
import { BULK_PORT, HTTP_PORT } from './ports.ts'

const pattern = bulkPattern()

function sendForEver(socket: Socket): void {
  socket.on('error', () => {}) // the client leaves in the middle: that is how a transfer ends
  const send = (): void => {
    while (socket.writable && socket.write(pattern)) {}
  }
  socket.on('drain', send)
  send()
}

serveHttp(eventLoop, HTTP_PORT)
createServer(sendForEver).listen(BULK_PORT, '0.0.0.0', () => process.stdout.write('ready\n'))
