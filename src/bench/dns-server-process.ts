// The DNS server of Z, as a process of its own.
import { eventLoop } from '../sys/loop.ts'
import { serveDns } from './dns-responder.ts'
import { DNS_PORT } from './ports.ts'

serveDns(eventLoop, DNS_PORT)
process.stdout.write('ready\n')
