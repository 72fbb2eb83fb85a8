// The servers of Z for HTTP and bulk, as a process of their own.
import { eventLoop } from '../sys/loop.ts'
import { serveBulk } from './bulk-responder.ts'
import { serveHttp } from './http-responder.ts'
import { BULK_PORT, HTTP_PORT } from './ports.ts'

serveHttp(eventLoop, HTTP_PORT)
serveBulk(eventLoop, BULK_PORT)
process.stdout.write('ready\n')
