import assert from 'node:assert/strict'
import { mkdirSync, readFileSync, rmdirSync, writeFileSync } from 'node:fs'
import { after, before, describe, test } from 'node:test'
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
type Mode = (typeof MODES)[number]
const BACKENDS = ['nft', 'iptables'] as const
const ANSWER = 'HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\nok'
/** What is tried of a mode at once: a listener for each, told apart by their ports. */
const TRIED = ['any process', 'named user', 'excluded user', 'other user', 'named cgroup', 'excluded cgroup'] as const
type Tried = (typeof TRIED)[number]

let lab: Topology
const servers: LabServer[] = []

before(async () => {
  lab = await raiseTopology()
  // iptables leaves its tables behind when it was the first to use them
  await plantOthersRules({ modes: ['redirect'], path: 'local', backend: 'iptables', topology: lab })
  for (const family of FAMILIES) {
    for (const port of MODES.flatMap((mode) => TRIED.map((tried) => portOf(mode, tried)))) {
      servers.push(await serve(lab.z, web(family, port), answer))
    }
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

function portOf(mode: Mode, tried: Tried): number {
  return 80 + 10 * MODES.indexOf(mode) + TRIED.indexOf(tried)
}

function web(family: Family, port: number): Endpoint {
  return { address: ADDRESSES[family].z, port }
}

function peersOf(to: Endpoint): Endpoint[] {
  return servers.find(({ endpoint }) => sameEndpoint(endpoint, to))!.peers
}

let nextPort = 20_000 // below the kernel's own
let limpid: LimpidProcess

for (const backend of BACKENDS) {
  describe(`${backend}, every mode in one ruleset`, () => {
    let pristine: string
    let cgroup: TestCgroup | string
    const older = new Map<string, Talk>()

    before(async () => {
      pristine = await kernelState(lab.x)
      cgroup = await TestCgroup.make()
      for (const mode of MODES) {
        // a port that no flow of an earlier test had: conntrack, which comes with the rules, would take it for that flow's
        const port = nextPort++
        for (const family of FAMILIES) {
          const from = { address: ADDRESSES[family].xz, port }
          older.set(`${mode} ${family}`, await Talk.open(lab.x, web(family, portOf(mode, 'any process')), from))
        }
      }
      limpid = await LimpidProcess.start(lab.x, ['run', '-c', fileWith(backend, cgroup)])
    })

    after(async () => {
      await limpid.stop()
      for (const talk of older.values()) talk.close()
      if (typeof cgroup !== 'string') cgroup.remove()
    })

    for (const mode of MODES) {
      const port = portOf(mode, 'any process')

      test(`${mode}, ${backend}: a connection older than the rules goes on while new ones are taken; what Y sends passes by`, async () => {
        const flows = (await limpid.stats()).flowsTotal
        for (const family of FAMILIES) {
          const talk = older.get(`${mode} ${family}`)!
          await talk.say('still here')
          await assertTaken(lab.x, web(family, port), true)
          await assertTaken(lab.y, web(family, port), false)
          await talk.say('and afterwards')
        }
        assert.equal((await limpid.stats()).flowsTotal, flows + FAMILIES.length)
      })

      test(`R14: ${mode}, ${backend}: ${CLIENTS} parallel connections made on X are each taken once, and all answered`, async () => {
        for (const family of FAMILIES) {
          await limpid.recorded((await limpid.stats()).flowsTotal)
          const { dials, flowsTotal, endedBy } = await limpid.stats()
          assert.deepEqual(await fetchAll(lab.x, web(family, port)), { 200: CLIENTS })
          await limpid.recorded(flowsTotal + CLIENTS)
          const now = await limpid.stats()
          assert.deepEqual(
            { dials: now.dials, flowsOpen: now.flowsOpen, flowsTotal: now.flowsTotal },
            { dials: dials + CLIENTS, flowsOpen: 0, flowsTotal: flowsTotal + CLIENTS },
          )
          assert.deepEqual(now.endedBy, { ...endedBy, closed: (endedBy.closed ?? 0) + CLIENTS })
        }
      })

      test(`${mode}, ${backend}: only processes of the named users are taken, and none of the excluded ones`, async () => {
        for (const family of FAMILIES) {
          await assertTaken(lab.x, web(family, portOf(mode, 'named user')), true, 'uids: 0')
          await assertTaken(lab.x, web(family, portOf(mode, 'excluded user')), false, 'exclude: uids: 0')
          if (backend === 'iptables') continue
          await assertTaken(lab.x, web(family, portOf(mode, 'other user')), false, 'uids: 1-65534')
        }
      })

      test(`${mode}, ${backend}: only processes of a named cgroup are taken, and not those of an excluded one`, async (t) => {
        const group = cgroup
        if (typeof group === 'string') return t.skip(group)
        for (const family of FAMILIES) {
          for (const [tried, wanted] of [
            ['named cgroup', true],
            ['excluded cgroup', false],
          ] as const) {
            const to = web(family, portOf(mode, tried))
            await assertTaken(lab.x, to, !wanted, 'outside')
            await group.within(() => assertTaken(lab.x, to, wanted, 'inside'))
          }
        }
      })
    }

    test(`${backend}: stopped, nothing is left of the rules, and connections older than they go on`, async () => {
      assert.equal(await limpid.stop(), 0, limpid.stderr)
      for (const talk of older.values()) await talk.say('also without the rules')
      assert.equal(await kernelState(lab.x), pristine, 'nothing is left')
    })
  })
}

/** A configuration file with a listener of each mode for all that is tried. */
function fileWith(backend: (typeof BACKENDS)[number], cgroup: TestCgroup | string): string {
  const conditions: Partial<Record<Tried, object>> = {
    'any process': {},
    'named user': { uids: 0 },
    'excluded user': { exclude: { uids: 0 } },
    // xt_owner takes no uid that is not mapped, and in the lab 0 alone is
    ...(backend === 'nft' ? { 'other user': { uids: '1-65534' } } : {}),
    ...(typeof cgroup === 'string'
      ? {}
      : { 'named cgroup': { cgroups: cgroup.name }, 'excluded cgroup': { exclude: { cgroups: cgroup.name } } }),
  }
  const listeners = MODES.flatMap((intercept) =>
    Object.entries(conditions).map(([tried, condition]) => {
      return { intercept, paths: 'local', ports: portOf(intercept, tried as Tried), ...condition }
    }),
  )
  const file = '/run/local-path.yaml'
  writeFileSync(file, JSON.stringify({ listeners, rules: { backend } }))
  return file
}

/** Requests from curl, or from Node where there is none; how many got which status. */
async function fetchAll(host: Host, to: Endpoint): Promise<Record<string, number>> {
  const answers = isInstalled('curl') ? await fetchWithCurl(host, to) : await fetchWithNode(host, to)
  const counts: Record<string, number> = {}
  for (const text of answers) counts[text] = (counts[text] ?? 0) + 1
  return counts
}

async function fetchWithCurl(host: Host, to: Endpoint): Promise<string[]> {
  const url = `url = "http://${formatEndpoint(to)}/"\noutput = "/dev/null"\n`
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

async function fetchWithNode(host: Host, to: Endpoint): Promise<string[]> {
  console.log('# curl is not installed: the clients are those of Node')
  return await Promise.all(
    Array.from({ length: CLIENTS }, async () => {
      const socket = host.connect(to)
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
    await until(() => this.#heard === `echo ${line}`, `answer to "${line}", but "${this.#heard}"`)
  }

  get client(): Endpoint {
    return { address: this.#socket.localAddress!, port: this.#socket.localPort! }
  }

  close(): void {
    this.#socket.destroy()
  }
}

/** Whether the server sees the client's own socket, or another one. */
async function assertTaken(host: Host, to: Endpoint, taken: boolean, what = host.name): Promise<void> {
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
