import assert from 'node:assert/strict'
import { spawnSync } from 'node:child_process'
import { mkdtempSync, rmSync, symlinkSync, writeFileSync } from 'node:fs'
import { createServer } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { after, test } from 'node:test'
import { LIMPID_PROGRAM } from '../lab/limpid-process.ts'
import { enterNamespaces } from '../lab/namespace.ts'
import { findProgram, mustRun } from '../sys/program.ts'

await enterNamespaces()
await mustRun('ip', ['link', 'set', 'lo', 'up'])

const folder = mkdtempSync(join(tmpdir(), 'limpid-bad-'))
after(() => rmSync(folder, { recursive: true }))
const badKey = join(folder, 'key.yaml')
const badType = join(folder, 'type.yaml')
const badPort = join(folder, 'port.yaml')
writeFileSync(badKey, 'listeners:\n  - intercpet: tproxy\n')
writeFileSync(badType, 'listeners:\n  - fastOpen: often\n')
symlinkSync(findProgram('ip'), join(folder, 'ip'))
writeFileSync(badPort, 'listeners:\n  - ports: [80, 70000]\n')

const occupier = createServer().listen(50_080, '127.0.0.1')
after(() => occupier.close())

interface BadInput {
  readonly what: string
  readonly args: string
  readonly env?: Record<string, string>
  /** A program with arguments that runs limpid. */
  readonly wrapper?: readonly string[]
  readonly exitCode: number
  readonly line: RegExp
}

const WITHOUT_CAPABILITIES = ['setpriv', '--bounding-set=-net_admin,-net_raw', '--inh-caps=-net_admin,-net_raw']
const FREE = '--listen 127.0.0.1:50081 [::1]:50081'

const INPUTS: readonly BadInput[] = [
  {
    what: 'an unknown key',
    args: `run -c ${badKey}`,
    exitCode: 78,
    line: /key\.yaml:2:5: .*"intercpet"; did you mean "intercept"\?/,
  },
  {
    what: 'a wrong type',
    args: `run -c ${badType}`,
    exitCode: 78,
    line: /type\.yaml:2:15: expected true or false, found "often"/,
  },
  {
    what: 'port 70000 in a file',
    args: `run -c ${badPort}`,
    exitCode: 78,
    line: /port\.yaml:2:17: .* from 1 to 65535, .* found 70000/,
  },
  {
    what: 'port 70000 in a flag',
    args: 'run --intercept tproxy --ports 70000',
    exitCode: 2,
    line: /--ports: .* from 1 to 65535, .*"70000"/,
  },
  {
    what: 'an unknown interface',
    args: `run --intercept tproxy ${FREE} --from eth7`,
    exitCode: 78,
    line: /^LIMPID_INTERFACE: .*eth7.*; .*lo/,
  },
  {
    what: 'a missing capability',
    args: `run --intercept tproxy ${FREE}`,
    wrapper: WITHOUT_CAPABILITIES,
    exitCode: 77,
    line: /^LIMPID_CAPABILITY: .*lacks CAP_NET_ADMIN and CAP_NET_RAW.*; run as root/,
  },
  {
    what: 'a taken port',
    args: 'run --intercept tproxy --family 4',
    exitCode: 1,
    line: /^LIMPID_LISTEN: cannot listen on 127\.0\.0\.1:50080: .*EADDRINUSE/,
  },
  {
    what: 'a missing nft',
    args: `run --intercept tproxy ${FREE}`,
    env: { LIMPID_PATH: folder },
    exitCode: 1,
    line: /^LIMPID_PROGRAM: cannot find the program nft; .*apt-get install nftables/,
  },
  {
    what: 'a kernel without tproxy',
    args: `run --intercept tproxy ${FREE}`,
    env: { LIMPID_PROBE_FAIL: 'tproxy' },
    exitCode: 1,
    line: /^LIMPID_KERNEL: .*nft_tproxy.*; /,
  },
  {
    what: 'a name without an address',
    args: 'relay 50082 no-such-name.invalid',
    exitCode: 1,
    line: /^LIMPID_HOST_NAME: cannot resolve no-such-name\.invalid/,
  },
]

for (const { what, args, env, wrapper = [], exitCode, line } of INPUTS) {
  test(`${what}: one line with what to do, exit code ${exitCode}, nothing changed`, async () => {
    const before = await kernelState()
    const { status, stdout, stderr } = limpid(args, wrapper, env)
    assert.match(stderr, line)
    assert.match(stderr, /^[^\n]+\n$/)
    assert.equal(status, exitCode)
    assert.equal(stdout, '')
    assert.equal(await kernelState(), before)
  })
}

test('a missing capability is told at once, before the proxy is loaded', () => {
  const startedAt = performance.now()
  spawnSync(process.execPath, ['-e', '0'])
  const bareMs = performance.now() - startedAt // what Node itself takes, on a machine that may be slow
  const durations = Array.from({ length: 5 }, () => {
    const startedAt = performance.now()
    assert.equal(limpid(`run --intercept tproxy ${FREE}`, WITHOUT_CAPABILITIES).status, 77)
    return performance.now() - startedAt
  })
  assert.ok(Math.min(...durations) < 500 + 3 * bareMs, `${durations.map(Math.round).join(', ')} ms; Node ${bareMs} ms`)
})

function limpid(args: string, wrapper: readonly string[] = [], env: Record<string, string> = {}) {
  const [program = '', ...rest] = [...wrapper, process.execPath, LIMPID_PROGRAM, ...args.split(' ')]
  const path = wrapper.length > 0 ? findProgram(program) : program
  return spawnSync(path, rest, {
    encoding: 'utf8',
    timeout: 20_000,
    env: { ...process.env, LIMPID_CONFIG: '', ...env },
  })
}

/** Everything that a run could have changed in this network namespace. */
async function kernelState(): Promise<string> {
  const texts = await Promise.all([
    mustRun('nft', ['list', 'ruleset']),
    mustRun('ip', ['-4', 'rule']),
    mustRun('ip', ['-6', 'rule']),
    mustRun('ip', ['-4', 'route', 'show', 'table', 'all']),
    mustRun('ip', ['-6', 'route', 'show', 'table', 'all']),
    mustRun('sysctl', ['net.ipv4', 'net.ipv6']).catch(() => ''),
  ])
  return texts.join('\n').replaceAll(/ expires \d+sec/g, '')
}
