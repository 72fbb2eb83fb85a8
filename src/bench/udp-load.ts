import { fileURLToPath } from 'node:url'
import { LimpidError } from '../errors.ts'
import { ADDRESSES } from '../lab/topology.ts'
import type { Endpoint } from '../net/address.ts'
import type { Load } from './cpu.ts'
import { UDP_PORT } from './ports.ts'
import type { Subject } from './suite.ts'

const PROCESS = fileURLToPath(new URL('./udp-load-process.js', import.meta.url))

/** What a load does: bursts of datagrams from the clients' sessions, in turns. */
export interface UdpTraffic {
  readonly sessions: number
  /** Bytes of each datagram. */
  readonly size: number
  /** Datagrams of a session that are sent together; all must have come before its next. */
  readonly burst: number
  /** Datagrams of all sessions together that may be on their way: fewer than any buffer on it holds. */
  readonly window: number
  /** The server sends each back; else it only takes them. */
  readonly isEcho: boolean
}

/** What the load's process is told. */
export interface UdpLoad extends UdpTraffic {
  readonly clientNamespace: string
  readonly client: string
  readonly dialled: Endpoint
  readonly server: Endpoint
  readonly seconds: number
}

export interface UdpLoadResult {
  /** Datagrams that clients sent. */
  readonly sent: number
  /** Of these, those that came to the end of their way: the server, or with echo the client again. */
  readonly arrived: number
  /** Packets that arrived, of both ways. */
  readonly packets: number
  readonly seconds: number
}

/**
 * Runs a load through a subject.
 * @throws LimpidError LIMPID_PROGRAM when a datagram is wrong; LIMPID_LAB when none came.
 */
export async function runUdpLoad(subject: Subject, traffic: UdpTraffic, seconds: number): Promise<Load> {
  const { y, z } = subject.topology
  const load: UdpLoad = {
    ...traffic,
    clientNamespace: y.path,
    client: ADDRESSES[4].y,
    dialled: { address: subject.dialled, port: UDP_PORT },
    server: { address: ADDRESSES[4].z, port: UDP_PORT },
    seconds,
  }
  const output = await z.run(process.execPath, [PROCESS, JSON.stringify(load)])
  const result = JSON.parse(output) as UdpLoadResult
  if (result.packets === 0) throw new LimpidError('LIMPID_LAB', `${subject.name}: no datagram arrived`)
  return {
    units: result.packets / 1e6,
    rate: result.packets / result.seconds,
    seconds: result.seconds,
    lostPercent: (100 * (result.sent - result.arrived)) / result.sent,
  }
}
