// The servers of Z to which flows are routed by name, as a process of its own: one for each name, and one that never answers.
import { eventLoop } from '../sys/loop.ts'
import { HELD_NAME, SERVER_NAMES } from './client-hello.ts'
import { serveHello } from './hello-responder.ts'
import { NAMED_PORTS } from './ports.ts'

for (const [i, name] of SERVER_NAMES.entries()) serveHello(eventLoop, NAMED_PORTS + i, name)
serveHello(eventLoop, NAMED_PORTS + SERVER_NAMES.length, HELD_NAME, false)
process.stdout.write('ready\n')
