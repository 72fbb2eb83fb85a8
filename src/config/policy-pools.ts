import type { Balance, PoolConfig } from './policy-types.ts'
import { BALANCE, SERVER } from './policy-values.ts'
import type { Report } from './problem.ts'
import type { values as listed, value as parsed } from './schema.ts'
import { DURATION } from './values.ts'
import * as z from './zod.ts'

const MAX_POOLS = 64
const MAX_SERVERS = 256 // of one pool
const MIN_HEALTH_MS = 500
const DEFAULT_HEALTH_MS = 5_000

/** The key `pools`. `name`: the schema of one. */
export function poolsSchema(
  { value, values }: { readonly value: typeof parsed; readonly values: typeof listed },
  name: z.ZodString,
) {
  const pool = z.strictObject(
    {
      servers: values(SERVER, 1, MAX_SERVERS).describe('Addresses, with ports or without to keep the original one.'),
      balance: value<Balance, Balance>(BALANCE)
        .optional()
        .describe('round-robin (the default), least-flows, or client-hash: a client keeps its server.'),
      health: value(DURATION)
        .optional()
        .describe(
          'How often each server is asked for a TCP connection; 5s when left out and all have ports; off: never.',
        ),
    },
    { error: 'a map with servers, balance or health' },
  )
  return z
    .record(name, pool, { error: 'a map of names and pools' })
    .describe('Servers among which rules share out flows, with `to: pool:NAME`.')
}

type PoolsInput = z.output<ReturnType<typeof poolsSchema>>

/** Problems go to `report`, with paths within the policy. */
export function buildPools(input: PoolsInput | undefined, report: Report): Readonly<Record<string, PoolConfig>> {
  const entries = Object.entries(input ?? {})
  if (entries.length > MAX_POOLS) report({ path: ['pools'], message: `expected at most ${MAX_POOLS} pools` })
  const built = entries.map(([name, { servers = [], balance = 'round-robin', health }]): [string, PoolConfig] => {
    const path = ['pools', name]
    if (servers.length === 0) report({ path, message: 'expected "servers": a pool has one at least' })
    const known = new Set(servers.map(({ address, port }) => `${address} ${port}`))
    if (known.size < servers.length) report({ path: [...path, 'servers'], message: 'a server is there twice' })
    const haveAllPorts = servers.every(({ port }) => port !== 0)
    if (health !== undefined && health > 0 && !haveAllPorts) {
      report({
        path: [...path, 'health'],
        message: 'a server without a port cannot be asked: give ports, or health off',
      })
    }
    if (health !== undefined && health > 0 && health < MIN_HEALTH_MS) {
      report({ path: [...path, 'health'], message: `expected off, or at least ${MIN_HEALTH_MS}ms` })
    }
    return [name, { servers, balance, healthMs: health ?? (haveAllPorts ? DEFAULT_HEALTH_MS : 0) }]
  })
  return Object.fromEntries(built)
}
