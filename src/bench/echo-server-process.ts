// A server of Z that sends back what comes, as a process of its own.
import { eventLoop } from '../sys/loop.ts'
import { serveEcho } from './echo-responder.ts'
import { ECHO_PORT } from './ports.ts'

serveEcho(eventLoop, ECHO_PORT)
process.stdout.write('ready\n')
