import assert from 'node:assert/strict'
import { DEFAULT_RULES, MATCH_ANY } from '../config/defaults.ts'
import type { ListenerConfig } from '../config/types.ts'
import type { Endpoint } from '../net/address.ts'
import { CLIENT, FAMILIES, type InstalledRules, PROXY, SERVER } from './gateway.fixture.ts'
import { MODES } from './iptables.fixture.ts'
import { Datagrams, replySocket, SILENT_MS, upstreamSocket } from './udp.fixture.ts'
import {
  at,
  converse,
  EXCLUDED,
  endsOf,
  listening,
  type Networks,
  NOT_EXCLUDED,
  PATHS,
  text,
  udpListener,
  WIDE,
} from './udp-networks.fixture.ts'

/**
 * What the rules of every backend promise to UDP. `test`: one of the calling file's own that calls node:test's, which tells
 * a test's file by where it is called.
 */
export function promiseUdpInterception(
  test: (name: string, work: () => Promise<void>) => void,
  networks: () => Networks,
  install: (...listeners: readonly ListenerConfig[]) => Promise<InstalledRules>,
): void {
  for (const path of PATHS) {
    for (const mode of MODES) {
      test(`${mode} on the path ${path}: the listener gets every datagram, and its answers come from the server's address`, async () => {
        // on lo, an answer of a socket that is bound to no address comes from another than where the question went
        const listen = FAMILIES.map((family) => at(family === 4 ? '127.0.0.1' : '::1', 50_080))
        const listener = udpListener(mode, path, mode === 'redirect' && path === 'local' ? { listen } : {})
        using sockets = listening(listener)
        await using _rules = await install(listener)
        for (const family of FAMILIES) {
          const ends = endsOf(networks(), path, family)
          using client = ends.client()
          const sender = text(client.local)
          for (const word of ['one', 'two']) {
            client.send(word, ends.server)
            if (mode === 'redirect' || mode === 'dnat') {
              assert.equal(await sockets[family].answer(`re ${word}`), `${word} from ${sender}`)
            } else {
              assert.equal(await sockets[family].next(), `${word} from ${sender}`)
              using reply = mode === 'tproxy' ? replySocket(ends.server) : ownSocket(ends.server)
              reply.send(`re ${word}`, client.local)
            }
            assert.equal(await client.next(), `re ${word} from ${text(ends.server)}`)
          }
          client.send('by', at(ends.server.address, 81))
          assert.equal(await client.next(), `server saw ${sender} from ${text(at(ends.server.address, 81))}`)
        }
      })
    }
  }

  for (const path of ['forwarded', 'bridged'] as const) {
    for (const mode of MODES) {
      test(`${mode} on the path ${path}: answers to the client's address and port come to the upstream socket`, async () => {
        const wide = mode === 'mark' ? {} : WIDE
        const listener = udpListener(mode, path, { ...wide, source: 'client-port' })
        using sockets = listening(listener)
        await using _rules = await install(listener)
        for (const family of FAMILIES) {
          const { client: open, server } = endsOf(networks(), path, family)
          using client = open()
          const { address, port } = client.local
          for (const from of [at(address, 0), at(address, port)]) {
            client.send('question', server)
            assert.equal(await sockets[family].next(), `question from ${text(client.local)}`)
            using upstream = upstreamSocket(from, server)
            for (const word of ['first', 'second']) {
              upstream.send(word)
              assert.equal(await upstream.next(), `server saw ${text(upstream.local)} from ${text(server)}`)
            }
          }
          const more = await Promise.all([client.next(SILENT_MS), sockets[family].next(SILENT_MS)])
          assert.deepEqual(more, ['silence', 'silence'])
        }
      })
    }
  }

  for (const changes of [WIDE, {}]) {
    const ports = changes === WIDE ? 'all ports' : 'one port'
    test(`tproxy of ${ports}: what answers clients with the server's address and port takes none of their datagrams`, async () => {
      const listener = udpListener('tproxy', 'forwarded', { ...changes, exclude: NOT_EXCLUDED })
      using sockets = listening(listener)
      await using _rules = await install(listener)
      const { y } = networks().gateway
      for (const family of FAMILIES) {
        const server = at(SERVER[family], 80)
        using reply = replySocket(server)
        using client = new Datagrams(at(CLIENT[family], 0), { on: y })
        using excluded = new Datagrams(at(EXCLUDED[family], 0), { on: y })
        for (const word of ['one', 'two']) {
          client.send(word, server)
          assert.equal(await sockets[family].next(), `${word} from ${text(client.local)}`)
          reply.send('answer', client.local)
          assert.equal(await client.next(), `answer from ${text(server)}`)
          excluded.send(word, server)
          assert.equal(await excluded.next(), `server saw ${text(excluded.local)} from ${text(server)}`)
        }
        assert.equal(await reply.next(SILENT_MS), 'silence')
      }
    })
  }

  test('of two local listeners, each gets the datagrams of its own, although only the sender told them apart', async () => {
    const uid = process.getuid!()
    const others = udpListener('tproxy', 'local', {
      ...{ name: 'others', match: { ...MATCH_ANY, fwmarks: [{ value: 7, mask: 0xff }] } },
      listen: [at('127.0.0.1', 50_081), at('::1', 50_081)],
    })
    const own = udpListener('tproxy', 'local', { match: { ...MATCH_ANY, uids: [{ from: uid, to: uid }] } })
    using sockets = listening(own) // at the other's port nobody listens
    await using _rules = await install(others, own)
    for (const family of FAMILIES) {
      using client = endsOf(networks(), 'local', family).client()
      client.send('mine', at(SERVER[family], 80))
      assert.equal(await sockets[family].next(), `mine from ${text(client.local)}`)
    }
  })

  test('local tproxy of all ports: this host’s servers answer, and what it asks itself is taken', async () => {
    const listener = udpListener('tproxy', 'local', WIDE)
    using sockets = listening(listener)
    await using _rules = await install(listener)
    for (const family of FAMILIES) {
      const service = at(PROXY[family], 5_300)
      using _service = new Datagrams(service).serve()
      using asking = new Datagrams(at(CLIENT[family], 0), { on: networks().gateway.y })
      await converse(asking, service)
      using client = endsOf(networks(), 'local', family).client()
      client.send('mine', at(SERVER[family], 81))
      assert.equal(await sockets[family].next(), `mine from ${text(client.local)}`)
    }
  })

  for (const path of PATHS) {
    for (const mode of MODES) {
      test(`${mode} on the path ${path}, closed: what the rules took is dropped when they are gone`, async () => {
        const listener = udpListener(mode, path, { onDown: 'closed' })
        await using rules = await install(listener)
        await rules.removeMain()
        await Promise.all(
          FAMILIES.map(async (family) => {
            const { client: open, server } = endsOf(networks(), path, family)
            using client = open()
            client.send('question', server)
            assert.equal(await client.next(SILENT_MS), 'silence')
            client.send('by', at(server.address, 81))
            assert.match(await client.next(), /^server saw/)
          }),
        )
      })
    }
  }
}

/** A mark listener sends its answers by itself, with the original destination as their source. */
function ownSocket(original: Endpoint): Datagrams {
  return new Datagrams(original, { transparent: true, mark: DEFAULT_RULES.bypassMark })
}
