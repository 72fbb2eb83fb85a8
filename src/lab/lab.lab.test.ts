import assert from 'node:assert/strict'
import { type ChildProcess, execFile, spawn } from 'node:child_process'
import { once } from 'node:events'
import { readdirSync, readFileSync, readlinkSync } from 'node:fs'
import { createInterface } from 'node:readline'
import { test } from 'node:test'
import { setTimeout as wait } from 'node:timers/promises'
import { fileURLToPath } from 'node:url'
import { formatEndpoint } from '../net/address.ts'
import { LIMPID_PROGRAM } from './limpid-process.ts'
import type { LabReport } from './report.ts'
import { ADDRESSES } from './topology.ts'

const LAB_MS = 180_000 // a bound, for a machine with other work as well
const AS_NOBODY = ['setpriv', '--reuid=65534', '--regid=65534', '--clear-groups', '--']
/** Root needs CAP_SETFCAP to become root of a user namespace (user_namespaces(7)); it gives no other right here. */
const WITHOUT_CAPABILITIES = ['setpriv', '--bounding-set=-all,+setfcap', '--inh-caps=-all', '--']
const PLANTED = fileURLToPath(new URL('./planted.fixture.js', import.meta.url))

interface Outcome {
  readonly code: number
  readonly stdout: string
  readonly stderr: string
}

function runToEnd(command: readonly string[], env: Record<string, string> = {}): Promise<Outcome> {
  const options = { timeout: LAB_MS, killSignal: 'SIGKILL' as const, env: { ...process.env, ...env } }
  return new Promise((resolve) => {
    execFile(command[0]!, command.slice(1), options, (error, stdout, stderr) => {
      resolve({ code: error === null ? 0 : Number(error.code ?? -1), stdout, stderr })
    })
  })
}

function lab(...args: string[]): string[] {
  return [process.execPath, LIMPID_PROGRAM, 'lab', ...args]
}

test('S1–S4 over IPv4 and IPv6 are as predicted, and the report is one JSON document', async () => {
  const { code, stdout, stderr } = await runToEnd(lab('--json'))
  assert.equal(code, 0, stdout + stderr)
  assertAllPassed(JSON.parse(stdout) as LabReport)
})

test('every other way to intercept is as predicted, and so is a port that the kernel passes on', async () => {
  const { code, stdout, stderr } = await runToEnd(
    lab('--scenario', 'redirect,dnat,mark,local,bridge,port-forward', '--json'),
  )
  assert.equal(code, 0, stdout + stderr)
  const { runs } = JSON.parse(stdout) as LabReport
  assert.equal(runs.length, 12)
  for (const run of runs) {
    assert.deepEqual(run.differences, [])
    assert.deepEqual(run.observed, run.predicted)
    assert.equal(run.bytes, 65_536)
  }
  const verdicts = Object.fromEntries(runs.map(({ scenario, predicted }) => [scenario, predicted.verdict]))
  assert.deepEqual(verdicts, {
    redirect: 'Y and Z know each other, not X',
    dnat: 'Y knows Z; Z knows X, not Y',
    mark: 'Y and Z know each other, not X',
    local: 'Y, a process of X, knows Z; Z knows X',
    bridge: 'Y and Z know each other, not X',
    'port-forward': 'Y knows X; Z knows Y, not X',
  })
})

const UDP = ['udp', 'udp-mark', 'udp-spoof', 'dns']
const FORGED = {
  4: 'IP 1.2.3.4.5300 > 198.41.0.4.53: UDP, length 24',
  6: 'IP6 2001:db8:1:2::3:4.5300 > 2001:db8:198:41::4.53: UDP, length 24',
}

test('datagrams are as predicted: sessions, the mark alone, one from nobody here, and names (R4, R18, R24)', async () => {
  const { code, stdout, stderr } = await runToEnd(lab('--scenario', UDP.join(','), '--json'))
  assert.equal(code, 0, stdout + stderr)
  assertDatagrams(JSON.parse(stdout) as LabReport)
})

test('an ordinary user gets the same of datagrams', async () => {
  const { code, stdout, stderr } = await runToEnd([
    ...(await asOrdinaryUser()),
    ...lab('--scenario', UDP.join(','), '--json'),
  ])
  assert.equal(code, 0, stdout + stderr)
  assertDatagrams(JSON.parse(stdout) as LabReport)
})

function assertDatagrams({ runs, passed }: LabReport): void {
  assert.equal(passed, true)
  assert.deepEqual(
    runs.map(({ scenario, family, protocol }) => `${scenario}/${family}/${protocol}`),
    UDP.flatMap((name) => [`${name}/4/udp`, `${name}/6/udp`]),
  )
  for (const run of runs) {
    assert.deepEqual(run.differences, [])
    assert.deepEqual(run.observed, run.predicted)
    if (run.scenario === 'udp-spoof') {
      assert.deepEqual(run.sentFrom, run.serverSees)
      assert.deepEqual(run.evidence, [
        { what: 'Z captures', predicted: FORGED[run.family], observed: FORGED[run.family] },
      ])
      continue
    }
    assert.deepEqual(run.clientSees, run.dialled, 'the answer comes from the address asked')
    if (run.scenario === 'dns') {
      assert.equal(run.evidence?.length, 3)
      assert.deepEqual(
        run.evidence.map(({ observed }) => observed.split(/ from .*; /)),
        [
          ['www.example A 192.0.2.80', 'Z heard the question'],
          ['www.example A 192.0.2.80', 'Z heard nothing'],
          ['ads.example A 192.0.2.99', 'Z heard nothing'],
        ],
      )
      continue
    }
    assert.ok(run.bytes! > 8_192)
    const { z } = ADDRESSES[run.family]
    const local = run.sockets.map(({ state, local }) => `${state} ${formatEndpoint(local)}`)
    const upstream = `ESTAB ${formatEndpoint(run.serverSees!)}`
    if (run.scenario === 'udp') {
      const listener = { address: run.family === 4 ? '127.0.0.1' : '::1', port: 50_080 }
      const reply = { address: z, port: 5_300 }
      assert.deepEqual(local, [`UNCONN ${formatEndpoint(listener)}`, `UNCONN ${formatEndpoint(reply)}`, upstream])
      assert.deepEqual(run.serverSees, run.client, "the client's port too")
    } else {
      const listener = { address: run.family === 4 ? '0.0.0.0' : '::', port: 5_301 }
      assert.deepEqual(local, [`UNCONN ${formatEndpoint(listener)}`, upstream])
    }
  }
}

test('an ordinary user gets the same', async () => {
  const { code, stdout, stderr } = await runToEnd([...(await asOrdinaryUser()), ...lab('--json')])
  assert.equal(code, 0, stdout + stderr)
  assertAllPassed(JSON.parse(stdout) as LabReport)
})

/** What makes a command run without privilege: nothing when we have none; nobody, unless it may not read our files. */
async function asOrdinaryUser(): Promise<string[]> {
  if (process.getuid?.() !== 0) return []
  const readable = await runToEnd([...AS_NOBODY, process.execPath, LIMPID_PROGRAM, 'version'])
  return readable.code === 0 ? AS_NOBODY : WITHOUT_CAPABILITIES
}

function assertAllPassed(report: LabReport): void {
  assert.equal(report.format, 1)
  assert.equal(report.passed, true)
  const names = report.runs.map(({ scenario, family }) => `${scenario}/${family}`)
  assert.deepEqual(names, ['S1/4', 'S1/6', 'S2/4', 'S2/6', 'S3/4', 'S3/6', 'S4/4', 'S4/6'])
  for (const run of report.runs) {
    assert.deepEqual(run.differences, [])
    assert.deepEqual(run.observed, run.predicted)
    assert.equal(run.bytes, 65_536)
    assert.equal(run.sockets.filter(({ state }) => state === 'ESTAB').length, 2)
    const listening = run.sockets.filter(({ state }) => state === 'LISTEN').map(({ local }) => local.port)
    assert.deepEqual([...new Set(listening)], [50_080], 'nothing else listens on X, least of all on port 80')
  }
}

test('the text report shows picture, command, sockets, peers and verdict, without colour codes in a pipe', async () => {
  const { code, stdout, stderr } = await runToEnd(lab('--scenario', 'S3'))
  assert.equal(code, 0, stdout + stderr)
  for (const promised of [
    /│ 10\.0\.3\.1 +│─+│ 10\.0\.3\.101 +10\.0\.4\.1 +│─+│ 10\.0\.4\.2 +│/,
    /\$ limpid relay -l -t -T 50080 10\.0\.4\.2 80/,
    /\$ limpid relay -l -t -T 50080 fd00:4::2 80/,
    /ESTAB +10\.0\.4\.2:80 +10\.0\.3\.1:\d+ .*towards Y/,
    /ESTAB +10\.0\.3\.1:\d+ +10\.0\.4\.2:80 .*towards Z/,
    /nothing listens on port 80/,
    /Y sees +10\.0\.4\.2:80 +Z/,
    /Z sees +10\.0\.3\.1:\d+ +Y with its port/,
    /2 of 2 as predicted/,
  ]) {
    assert.match(stdout, promised)
  }
  assert.ok(!stdout.includes('\x1b') && !stdout.includes('S1'))
  assert.match(stderr, /S3 over IPv6/)
})

test('a difference between predicted and observed is printed and exits 1', async () => {
  const { code, stdout } = await runToEnd([process.execPath, PLANTED, 'S1'])
  assert.equal(code, 1)
  assert.match(stdout, /difference Z sees X: 10\.0\.4\.1:\d+; predicted: Y$/m)
  assert.match(stdout, /difference Z sees X: \[fd00:4::1\]:\d+; predicted: Y$/m)
  assert.match(stdout, /✗ not as predicted/)
  assert.match(stdout, /0 of 2 as predicted/)
})

test('a wrong prophet of datagrams is found as well, of sessions and of the capture', async () => {
  const { code, stdout } = await runToEnd([process.execPath, PLANTED, 'udp', 'udp-spoof'])
  assert.equal(code, 1)
  assert.match(stdout, /difference Z sees Y with its port: 10\.0\.3\.1:\d+; predicted: Y$/m)
  assert.match(stdout, /difference Z captures: IP 1\.2\.3\.4\.5300 > .*; predicted: IP 1\.2\.3\.4\.5301 > /m)
  assert.match(stdout, /0 of 4 as predicted/)
})

test('when limpid does not start, the report shows what it said', async () => {
  const { code, stdout } = await runToEnd(lab('--scenario', 'S3'), { LIMPID_STATE_DIR: '/dev/null/state' })
  assert.equal(code, 1)
  assert.match(stdout, /difference limpid did not get ready: [^✗]*LIMPID_RULES_FAILED: .*\/dev\/null is not a folder/)
  assert.match(stdout, /nothing observed/)
})

test('an unknown scenario is one line and exit code 2', async () => {
  const { code, stdout, stderr } = await runToEnd(lab('--scenario', 'S9'))
  assert.deepEqual([code, stdout], [2, ''])
  assert.match(stderr, /^LIMPID_USAGE: .*S9.*\n$/)
})

/** A lab that stays up, with all processes and namespaces that belong to it. */
async function keptLab(): Promise<{ outer: ChildProcess; pids: number[]; namespaces: Set<string>; enter: string[] }> {
  const outer = spawn(process.execPath, lab('--scenario', 'S1', '--keep').slice(1), {
    stdio: ['ignore', 'ignore', 'pipe'],
    detached: true, // a process group of its own, as a shell gives it
  })
  const enter: string[] = []
  for await (const line of createInterface({ input: outer.stderr! })) {
    const command = /nsenter .*/.exec(line)?.[0]
    if (command !== undefined) enter.push(command)
    if (enter.length === 3) break
  }
  outer.stderr!.resume()
  const pids = descendants(outer.pid!)
  return { outer, pids, namespaces: new Set(pids.flatMap(foreignNamespaces)), enter }
}

function descendants(pid: number): number[] {
  const children = readFileSync(`/proc/${pid}/task/${pid}/children`, 'latin1').trim().split(' ').filter(Boolean)
  return [pid, ...children.flatMap((child) => descendants(Number(child)))]
}

/** Namespaces of a process that are not ours; none when it is gone. */
function foreignNamespaces(pid: number): string[] {
  try {
    const of = (owner: string) => ['net', 'mnt', 'pid', 'user'].map((kind) => readlinkSync(`/proc/${owner}/ns/${kind}`))
    const own = of('self')
    return of(String(pid)).filter((namespace) => !own.includes(namespace))
  } catch {
    return []
  }
}

function isAlive(pid: number): boolean {
  try {
    return !/^State:\s+Z/m.test(readFileSync(`/proc/${pid}/status`, 'latin1'))
  } catch {
    return false
  }
}

function inUse(namespaces: ReadonlySet<string>): string[] {
  const all = readdirSync('/proc').filter((name) => /^\d+$/.test(name))
  return all.flatMap((pid) => foreignNamespaces(Number(pid))).filter((namespace) => namespaces.has(namespace))
}

for (const [victim, index] of [
  ['the outer process', 0],
  ['unshare', 1],
  ['pid 1 of the lab', 2],
  ['the lab itself', 3],
] as const) {
  test(`after SIGKILL of ${victim} no process and no namespace is left`, async () => {
    const { outer, pids, namespaces } = await keptLab()
    assert.equal(pids.length, 4)
    assert.equal(namespaces.size, 4)
    const exited = once(outer, 'exit')
    process.kill(pids[index]!, 'SIGKILL')
    await exited
    const deadlineAt = performance.now() + 2_000
    while (performance.now() < deadlineAt && (pids.some(isAlive) || inUse(namespaces).length > 0)) await wait(5)
    assert.deepEqual(pids.filter(isAlive), [])
    assert.deepEqual(inUse(namespaces), [])
  })
}

test('--keep prints commands that enter each host, and ends at Ctrl-C with the result of the run', async () => {
  const { outer, pids, enter } = await keptLab()
  const exited = once(outer, 'exit')
  try {
    const addresses: string[] = []
    for (const command of enter) {
      const { code, stdout, stderr } = await runToEnd([...command.split(' '), 'ip', '-brief', 'address'])
      assert.equal(code, 0, stderr)
      addresses.push(stdout)
    }
    assert.match(addresses[0]!, /10\.0\.3\.101\/24.*10\.0\.4\.1\/24/s)
    assert.match(addresses[1]!, /10\.0\.3\.1\/24/)
    assert.match(addresses[2]!, /10\.0\.4\.2\/24/)
  } finally {
    process.kill(-outer.pid!, 'SIGINT') // as a terminal does: to all processes of the group
  }
  const [code] = await exited
  assert.equal(code, 0)
  assert.deepEqual(pids.filter(isAlive), [])
})

test('Ctrl-C during the run ends it at once with 130, and nothing is left', async () => {
  const outer = spawn(process.execPath, lab().slice(1), { stdio: ['ignore', 'ignore', 'pipe'], detached: true })
  for await (const line of createInterface({ input: outer.stderr! })) if (line.startsWith('[2/8]')) break
  const pids = descendants(outer.pid!)
  const namespaces = new Set(pids.flatMap(foreignNamespaces))
  const exited = once(outer, 'exit')
  process.kill(-outer.pid!, 'SIGINT')
  const [code] = await exited
  assert.equal(code, 130)
  assert.deepEqual([pids.filter(isAlive), inUse(namespaces)], [[], []])
})

test('SIGTERM to the outer process alone ends the lab too', async () => {
  const { outer, pids } = await keptLab()
  const exited = once(outer, 'exit')
  outer.kill('SIGTERM')
  const [code] = await exited
  assert.equal(code, 0)
  assert.deepEqual(pids.filter(isAlive), [])
})
