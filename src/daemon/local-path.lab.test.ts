import assert from 'node:assert/strict'
import { mkdirSync, readFileSync, rmdirSync, writeFileSync } from 'node:fs'
import { after, before, test } from 'node:test'
import type { Host } from '../lab/host.ts'
import { LimpidProcess } from '../lab/limpid-process.ts'
import { enterNamespaces } from '../lab/namespace.ts'
import { ADDRESSES, raiseTopology, type Topology } from '../lab/topology.ts'
import { type LabServer, receiveAll, serve, until } from '../lab/traffic.fixture.ts'
import { type Endpoint, type Family, formatEndpoint, sameEndpoint } from '../net/address.ts'
import { isInstalled, run } from '../sys/program.ts'
import { kernelState, plantOthersRules } from './matrix.fixture.ts'

await enterNamespaces()

const CLIENTS = 500
const CURLS = 2 // one curl makes 300 transfers at once at the most (--parallel-max)
const FAMILIES = [4, 6] as const
const MODES = ['tproxy', 'redirect', 'mark'] as const
const BACKENDS = ['nft', 'iptables'] as const
const ANSWER = 'HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\nok'
const PORTS = [80, 81, 82] as const
const EXCHANGE_MS = 3_000

let lab: Topology
const servers: LabServer[] = []

before(async () => {
  lab = await raiseTopology()
  // iptables leaves its tables behind when it was the first to use them
  await plantOthersRules({ modes: ['redirect'], path: 'local', backend: 'iptables', topology: lab })
  for (const family of FAMILIES) {
    for (const port of PORTS) servers.push(await serve(lab.z, web(family, port), answer))
  }
})

after(async () => {
  for (const server of servers) await server[Symbol.asyncDispose]()
  await lab.close()
})

/** To each line its answer; to a request one that ends the connection. */
function answer(socket: ReturnType<Host['connect']>): void {
  socket.on('data', (text: Buffer) => {
    if (text.includes('\r\n\r\n')) socket.end(ANSWER)
    else socket.write(`echo ${text}`)
  })
  socket.on('end', () => socket.end())
}

function web(family: Family, port: number = PORTS[0]): Endpoint {
  return { address: ADDRESSES[family].z, port }
}

function peersOf(to: Endpoint): Endpoint[] {
  return servers.find(({ endpoint }) => sameEndpoint(endpoint, to))!.peers
}

let nextPort = 20_000 // below the kernel's own

for (const backend of BACKENDS) {
  for (const mode of MODES) {
    const flags = ['--intercept', mode, '--path', 'local', '--ports', '80', '--backend', backend]

    test(`R14: ${mode}, ${backend}: ${CLIENTS} parallel connections made on X are each taken once, and all answered`, async () => {
      const { x } = lab
      const pristine = await kernelState(x)
      await whileRunning(flags, async (limpid) => {
        for (const [index, family] of FAMILIES.entries()) {
          assert.deepEqual(await fetchAll(x, family), { 200: CLIENTS })
          const total = CLIENTS * (index + 1)
          await limpid.recorded(total)
          const { dials, flowsOpen, flowsTotal, endedBy } = await limpid.stats()
          assert.deepEqual({ dials, flowsOpen, flowsTotal }, { dials: total, flowsOpen: 0, flowsTotal: total })
          assert.deepEqual(endedBy, { closed: total })
        }
      })
      assert.equal(await kernelState(x), pristine, 'nothing is left')
    })

    test(`${mode}, ${backend}: a connection older than the rules goes on while new ones are taken; what Y sends passes by`, async () => {
      const { x, y } = lab
      // a port that no flow of an earlier test had: conntrack, which comes with the rules, would take it for that flow's
      const port = nextPort++
      const older = await Promise.all(
        FAMILIES.map((family) => Talk.open(x, web(family), { address: ADDRESSES[family].xz, port })),
      )
      await whileRunning(flags, async (limpid) => {
        for (const [index, family] of FAMILIES.entries()) {
          await older[index]!.say('still here')
          await assertTaken(x, family, true)
          await assertTaken(y, family, false)
          await older[index]!.say('and afterwards')
        }
        assert.equal((await limpid.stats()).flowsTotal, FAMILIES.length)
      })
      for (const talk of older) {
        await talk.say('also without the rules')
        talk.close()
      }
    })

    test(`${mode}, ${backend}: only processes of the named users are taken, and none of the excluded ones`, async () => {
      const tried = [
        { condition: { uids: 0 }, taken: true },
        { condition: { exclude: { uids: 0 } }, taken: false },
        // xt_owner takes no uid that is not mapped, and in the lab 0 alone is
        ...(backend === 'nft' ? [{ condition: { uids: '1-65534' }, taken: false }] : []),
      ]
      const file = fileWith(
        mode,
        backend,
        tried.map(({ condition }) => condition),
      )
      await whileRunning(file, async () => {
        for (const [i, { condition, taken }] of tried.entries()) {
          for (const family of FAMILIES) {
            await assertTaken(lab.x, family, taken, { port: PORTS[i]!, what: JSON.stringify(condition) })
          }
        }
      })
    })

    test(`${mode}, ${backend}: only processes of a named cgroup are taken, and not those of an excluded one`, async (t) => {
      const cgroup = await TestCgroup.make()
      if (typeof cgroup === 'string') return t.skip(cgroup)
      try {
        const conditions = [{ cgroups: cgroup.name }, { exclude: { cgroups: cgroup.name } }]
        await whileRunning(fileWith(mode, backend, conditions), async () => {
          for (const family of FAMILIES) {
            for (const [port, wanted] of [
              [PORTS[0], true],
              [PORTS[1], false],
            ] as const) {
              await assertTaken(lab.x, family, !wanted, { port, what: 'outside' })
              await cgroup.within(() => assertTaken(lab.x, family, wanted, { port, what: 'inside' }))
            }
          }
        })
      } finally {
        cgroup.remove()
      }
    })
  }
}

/** Runs `limpid run` with these flags on X; it must end well. */
async function whileRunning(flags: readonly string[], work: (limpid: LimpidProcess) => Promise<void>): Promise<void> {
  const limpid = await LimpidProcess.start(lab.x, ['run', ...flags])
  try {
    await work(limpid)
  } finally {
    await limpid.stop()
  }
  assert.equal(await limpid.exited, 0, limpid.stderr)
}

/** The flags for a configuration file with a listener for each condition, told apart by their ports. */
function fileWith(intercept: string, backend: string, conditions: readonly object[]): string[] {
  const file = '/run/local-path.yaml'
  const listeners = conditions.map((condition, i) => ({ intercept, paths: 'local', ports: PORTS[i], ...condition }))
  writeFileSync(file, JSON.stringify({ listeners, rules: { backend } }))
  return ['-c', file]
}

/** Requests from curl, or from Node where there is none; how many got which status. */
async function fetchAll(host: Host, family: Family): Promise<Record<string, number>> {
  const answers = isInstalled('curl') ? await fetchWithCurl(host, family) : await fetchWithNode(host, family)
  const counts: Record<string, number> = {}
  for (const text of answers) counts[text] = (counts[text] ?? 0) + 1
  return counts
}

async function fetchWithCurl(host: Host, family: Family): Promise<string[]> {
  const url = `url = "http://${formatEndpoint(web(family))}/"\noutput = "/dev/null"\n`
  const args = [
    '-sgZ',
    '--parallel-immediate',
    '--parallel-max',
    `${CLIENTS / CURLS}`,
    '--max-time',
    '10',
    '-K',
    '-',
    '-w',
    '%{http_code}\n',
  ]
  const runs = Array.from({ length: CURLS }, () => host.run('curl', args, { input: url.repeat(CLIENTS / CURLS) }))
  return (await Promise.all(runs)).flatMap((text) => text.split('\n')).filter((line) => line !== '')
}

async function fetchWithNode(host: Host, family: Family): Promise<string[]> {
  console.log('# curl is not installed: the clients are those of Node')
  return await Promise.all(
    Array.from({ length: CLIENTS }, async () => {
      const socket = host.connect(web(family))
      socket.write('GET / HTTP/1.1\r\n\r\n')
      let text = ''
      socket.on('data', (chunk: Buffer) => {
        text += chunk
      })
      const { failure } = await receiveAll(socket)
      socket.destroy()
      return failure ?? text.split(' ')[1]!
    }),
  )
}

/** A connection that stays open, and says lines which the server says again. */
class Talk {
  readonly #socket
  #heard = ''

  private constructor(host: Host, to: Endpoint, from: Endpoint | undefined) {
    this.#socket = host.connect(to, from === undefined ? {} : { from }).on('error', (error) => {
      this.#heard += error.message
    })
    this.#socket.on('data', (text: Buffer) => {
      this.#heard += text
    })
  }

  /** Returns when the server has answered. */
  static async open(host: Host, to: Endpoint, from?: Endpoint): Promise<Talk> {
    const talk = new Talk(host, to, from)
    await talk.say('hello')
    return talk
  }

  async say(line: string): Promise<void> {
    this.#heard = ''
    this.#socket.write(line)
    await until(() => this.#heard === `echo ${line}`, EXCHANGE_MS, `answer to "${line}", but "${this.#heard}"`)
  }

  get client(): Endpoint {
    return { address: this.#socket.localAddress!, port: this.#socket.localPort! }
  }

  close(): void {
    this.#socket.destroy()
  }
}

/** Whether the server sees the client's own socket, or another one. */
async function assertTaken(
  host: Host,
  family: Family,
  taken: boolean,
  { port, what }: { port: number; what: string } = { port: PORTS[0], what: host.name },
): Promise<void> {
  const to = web(family, port)
  const peersBefore = peersOf(to).length
  const talk = await Talk.open(host, to)
  const { client } = talk
  talk.close()
  const direct = peersOf(to)
    .slice(peersBefore)
    .some((peer) => sameEndpoint(peer, client))
  assert.equal(!direct, taken, `${what}: ${formatEndpoint(client)} → ${formatEndpoint(to)}`)
}

const HIERARCHY = '/sys/fs/cgroup' // where nft and iptables look for cgroups, whatever is mounted elsewhere

/** A cgroup of this test, below the root of the version 2 hierarchy. The caller removes it. */
class TestCgroup {
  readonly name: string
  readonly #former: string

  private constructor(name: string, former: string) {
    this.name = name
    this.#former = former
  }

  /** Returns why there can be none. */
  static async make(): Promise<TestCgroup | string> {
    const mounts = readFileSync('/proc/self/mounts', 'utf8').split('\n')
    const [, mounted] = mounts.map((line) => line.split(' ')).find(([, , type]) => type === 'cgroup2') ?? []
    if (mounted === undefined) return 'no cgroup v2 hierarchy is mounted'
    if (!mounts.some((line) => line.includes(` ${HIERARCHY} cgroup2 `))) {
      const bound = await run('mount', ['--bind', mounted, HIERARCHY])
      if (bound.code !== 0) return `the cgroup v2 hierarchy cannot be mounted on ${HIERARCHY}: ${bound.stderr.trim()}`
    }
    const former = /^0::\/(.*)$/m.exec(readFileSync('/proc/self/cgroup', 'utf8'))?.[1]
    if (former === undefined) return 'this process is in no cgroup v2'
    const cgroup = new TestCgroup(`limpid-test-${process.ppid}-${process.pid}`, former)
    try {
      mkdirSync(`${HIERARCHY}/${cgroup.name}`)
    } catch (error) {
      return `the cgroup v2 hierarchy cannot be written: ${(error as Error).message}`
    }
    try {
      cgroup.#enter(cgroup.name)
      cgroup.#enter(former)
      return cgroup
    } catch (error) {
      cgroup.remove()
      return `this process cannot go into another cgroup and back: ${(error as Error).message}`
    }
  }

  /** Runs `work` within: sockets belong to the cgroup in which they were made. */
  async within<T>(work: () => Promise<T>): Promise<T> {
    this.#enter(this.name)
    try {
      return await work()
    } finally {
      this.#enter(this.#former)
    }
  }

  remove(): void {
    rmdirSync(`${HIERARCHY}/${this.name}`)
  }

  #enter(name: string): void {
    writeFileSync(`${HIERARCHY}/${name}/cgroup.procs`, '0')
  }
}
