// The load of the UDP cases, as a process of its own, on Z: both ends, so that what is on its way is known without packets
// that tell it. Argument: UdpLoad as JSON. Prints UdpLoadResult as JSON; fails at the first wrong datagram.
import { EPOLLIN, eventLoop } from '../sys/loop.ts'
import {
  addressWord,
  echo,
  openEnds,
  receiveBatch,
  sendBurst,
  sequenceIn,
  sessionIn,
  verifyBytes,
  verifySender,
} from './udp-ends.ts'
import type { UdpLoad, UdpLoadResult } from './udp-load.ts'
import { Flights } from './udp-traffic.ts'

const BATCH = 64
/** A datagram that has not come for so long will not come: nothing here waits so long in a buffer. */
const LOST_AFTER_MS = 100
const LOOK_EVERY_MS = 50

const load = JSON.parse(process.argv[2]!) as UdpLoad
const { sessions, size, burst, window, isEcho } = load
const ends = openEnds(load.clientNamespace, load.client, sessions, load.dialled, load.server)
const client = addressWord(load.client)
const flights = new Flights(sessions)
const departedAt = new Float64Array(sessions)
let requests = 0
let turn = 0
let isOver = false
let lastAt = 0

/** Sessions have their turn one after the other, one burst each, as long as no more than the window is on its way. */
function fill(): void {
  for (let i = 0; i < sessions && !isOver && flights.inFlight + burst <= window; i++) {
    const session = turn
    turn = (turn + 1) % sessions
    if (flights.inFlightOf(session) === 0) depart(session)
  }
}

function depart(session: number): void {
  departedAt[session] = eventLoop.now
  flights.depart(session, sendBurst(ends.clients[session]!, session, flights.nextOf(session), burst, size))
}

/** A datagram that waits in `slot` has come to the end of its way. */
function arrive(slot: number): void {
  verifyBytes(slot, size)
  flights.arrive(sessionIn(slot), sequenceIn(slot))
}

function onServer(): void {
  const count = receiveBatch(ends.server, BATCH)
  for (let slot = 0; slot < count; slot++) {
    verifySender(slot, client)
    if (!isEcho) arrive(slot)
  }
  if (count <= 0) return
  lastAt = eventLoop.now
  requests += count
  if (isEcho) echo(ends.server, count)
  else fill()
}

function onClient(session: number): void {
  const count = receiveBatch(ends.clients[session]!, BATCH)
  for (let slot = 0; slot < count; slot++) arrive(slot)
  if (count <= 0) return
  lastAt = eventLoop.now
  if (!isOver && flights.inFlightOf(session) === 0) depart(session)
}

/** Whoever waits for what is lost must go on. */
function look(): void {
  const now = performance.now()
  for (let session = 0; session < sessions; session++) {
    if (now - departedAt[session]! > LOST_AFTER_MS) flights.giveUp(session)
  }
  fill()
}

function report(): void {
  const result: UdpLoadResult = {
    sent: flights.sent,
    arrived: flights.arrived,
    packets: isEcho ? requests + flights.arrived : flights.arrived,
    seconds: (lastAt - startedAt) / 1000,
  }
  process.stdout.write(`${JSON.stringify(result)}\n`, () => process.exit(0))
}

eventLoop.add(ends.server, EPOLLIN, { onEvents: onServer })
if (isEcho) for (const [i, fd] of ends.clients.entries()) eventLoop.add(fd, EPOLLIN, { onEvents: () => onClient(i) })
process.on('uncaughtException', (error) => {
  process.stderr.write(`${error.message}\n`)
  process.exit(1)
})
const startedAt = performance.now()
fill()
setInterval(look, LOOK_EVERY_MS)
setTimeout(() => {
  isOver = true
  setTimeout(report, 2 * LOST_AFTER_MS) // what is on its way still counts
}, load.seconds * 1000)
