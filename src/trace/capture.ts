import { type ChildProcess, spawn } from 'node:child_process'
import { readFileSync } from 'node:fs'
import type { RulesConfig } from '../config/types.ts'
import { parseTrace, type TraceStep } from '../doctor/trace.ts'
import { findProgram } from '../sys/program.ts'
import type { Flow } from './flow.ts'
import { holdTraceTable } from './trace-table.ts'

const SUBSCRIBE_MS = 2_000
const POLL_MS = 10
const QUIET_MS = 200 // a packet's way through the hooks takes microseconds; then nothing more is said of it
const MAX_BYTES = 256 * 1024
const NETLINK_NETFILTER = '12' // include/uapi/linux/netlink.h
const NFTRACE_GROUP = 1 << 8 // NFNLGRP_NFTRACE is 9, include/uapi/linux/netfilter/nfnetlink.h

export interface CaptureOptions {
  readonly timeoutMs: number
  /** Ends the wait. */
  readonly signal: AbortSignal
  /** Called when packets are seen from now on. */
  readonly onReady: () => void
}

/**
 * Waits for the next packet that begins such a flow, and returns what nft tells of it; nothing when none came in time, or the signal
 * ended the wait. On every way out the kernel is as before.
 * @throws LimpidError LIMPID_PROGRAM
 */
export async function capture(flow: Flow, rules: RulesConfig, options: CaptureOptions): Promise<TraceStep[]> {
  const { signal } = options
  // when we die it does too: by itself it would notice only when a packet comes
  const args = ['--pdeathsig', 'KILL', '--', findProgram('nft'), '-a', 'monitor', 'trace']
  const monitor = spawn(findProgram('setpriv'), args, {
    detached: true,
    stdio: ['ignore', 'pipe', 'ignore'],
    env: { ...process.env, LC_ALL: 'C' },
  })
  monitor.on('error', () => {}) // then no line comes
  let said = ''
  let lastAt = 0
  monitor.stdout.on('data', (bytes: Buffer) => {
    if (said.length < MAX_BYTES) said += bytes.toString()
    lastAt = performance.now()
  })
  try {
    await until(() => isSubscribed(monitor), SUBSCRIBE_MS, signal)
    const table = await holdTraceTable(flow, rules)
    try {
      options.onReady()
      await until(() => lastAt > 0 && performance.now() - lastAt > QUIET_MS, options.timeoutMs, signal)
    } finally {
      await table.release()
    }
  } finally {
    await ended(monitor)
  }
  return firstFlow(parseTrace(said))
}

/** The packets of the first flow that is told of: one, or the same again behind lo. */
function firstFlow(packets: readonly (readonly TraceStep[])[]): TraceStep[] {
  const portOf = (steps: readonly TraceStep[]) => /\bsport (\d+)/.exec(steps[0]?.text ?? '')?.[1]
  const [first] = packets
  if (first === undefined) return []
  return packets.filter((steps) => portOf(steps) === portOf(first)).flat()
}

/** Whether nft's socket has joined the group to which the kernel sends traces; it does so right at its start. */
function isSubscribed({ pid, exitCode }: ChildProcess): boolean {
  if (exitCode !== null) return true // it says nothing any more
  return readFileSync('/proc/thread-self/net/netlink', 'latin1')
    .split('\n')
    .map((line) => line.trim().split(/\s+/))
    .some(
      ([, protocol, port, groups]) =>
        protocol === NETLINK_NETFILTER && port === `${pid}` && (Number.parseInt(groups!, 16) & NFTRACE_GROUP) !== 0,
    )
}

/** Waits until it holds, for so long at most, or until the signal. */
async function until(condition: () => boolean, withinMs: number, signal: AbortSignal): Promise<void> {
  const deadlineAt = performance.now() + withinMs
  while (!signal.aborted && performance.now() < deadlineAt && !condition()) {
    await new Promise((resolve) => setTimeout(resolve, POLL_MS))
  }
}

async function ended(child: ChildProcess): Promise<void> {
  if (child.exitCode !== null || child.signalCode !== null || child.pid === undefined) return
  await new Promise((resolve) => {
    child.once('exit', resolve)
    child.kill('SIGKILL')
  })
}
