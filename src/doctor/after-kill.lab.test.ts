import assert from 'node:assert/strict'
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { after, before, test } from 'node:test'
import { LIMPID_PROGRAM, LimpidProcess } from '../lab/limpid-process.ts'
import { enterNamespaces } from '../lab/namespace.ts'
import { raiseBridge, raiseTopology, type Topology } from '../lab/topology.ts'
import { doctorOn, wrongLines } from './doctor.fixture.ts'

await enterNamespaces()

const FLAGS = ['--intercept', 'tproxy', '--source', 'client']

let lab: Topology
before(async () => {
  lab = await raiseTopology()
})
after(async () => await lab.close())

for (const [onDown, signal, left] of [
  ['open', 'SIGKILL', /left behind: \d+ ip rules and their routes; traffic passes untaken; cure: limpid run /],
  [
    'closed',
    'SIGKILL',
    /left behind: nft table inet limpid-guard, \d+ ip rules and their routes; nft table inet limpid-guard drops what its closed listeners should take; cure: limpid run /,
  ],
  ['closed', 'SIGTERM', /left behind: nft table inet limpid-guard; nft table inet limpid-guard drops /],
] as const) {
  test(`after ${signal} one line says what is left behind (${onDown}), and none contradicts it`, async () => {
    const folder = mkdtempSync(join(tmpdir(), 'limpid-doctor-'))
    const file = join(folder, 'limpid.yaml')
    writeFileSync(file, `listeners:\n  - { intercept: tproxy, source: client, ports: [80], onDown: ${onDown} }\n`)
    const running = await LimpidProcess.start(lab.x, [
      'run',
      '-c',
      file,
      ...(signal === 'SIGTERM' ? ['--keep-guard'] : []),
    ])
    try {
      await running.stop(signal)
      const { lines, code } = await doctorOn(lab.x, ['-c', file])
      const [line, ...others] = wrongLines(lines)
      assert.match(line ?? '', /^wrong +rules +Limpid is not running; left behind: /)
      assert.match(line ?? '', left)
      assert.deepEqual(others, [])
      assert.ok(!lines.some((each) => /missing|dies|are installed|nothing listens/.test(each)), lines.join('\n'))
      assert.equal(code, 3)
      if (process.env.SHOW === '1') process.stderr.write(`${lines.join('\n')}\n`)
    } finally {
      await lab.x.run(process.execPath, [LIMPID_PROGRAM, 'rules', 'remove'])
      rmSync(folder, { recursive: true })
    }
  })
}

test('rules that vanished under a running Limpid are mended by another start, not by rules that stay', async () => {
  const running = await LimpidProcess.start(lab.x, ['run', ...FLAGS, '--no-rules'])
  try {
    const { lines } = await doctorOn(lab.x, FLAGS)
    const line = wrongLines(lines).find((each) => /^wrong +rules/.test(each))
    assert.match(line ?? lines.join('\n'), /no rules are installed: .*; cure: kill \d+, then limpid run --intercept/)
  } finally {
    await running.stop()
  }
})

test('a forward whose server refuses is wrong, with its address', async () => {
  const folder = mkdtempSync(join(tmpdir(), 'limpid-doctor-'))
  const file = join(folder, 'limpid.yaml')
  writeFileSync(file, 'forwards:\n  - { name: web, ports: [8080], to: "10.0.4.2:81" }\n')
  try {
    const { lines, code } = await doctorOn(lab.x, ['-c', file])
    assert.match(
      wrongLines(lines).join('\n'),
      /^wrong +forward +forward web leads to 10\.0\.4\.2:81, and it refuses connections; cure: ss .* on 10\.0\.4\.2 /,
    )
    assert.equal(code, 3)
  } finally {
    rmSync(folder, { recursive: true })
  }
})

test('a bridge that clients and servers share needs neither forwarding nor a route', async () => {
  const bridged = await raiseBridge()
  const flags = ['--intercept', 'tproxy', '--path', 'bridged', '--source', 'client', '--ports', '80']
  const running = await LimpidProcess.start(bridged.x, ['run', ...flags])
  try {
    const { lines, code, report } = await doctorOn(bridged.x, flags)
    assert.deepEqual(wrongLines(lines), [])
    assert.equal(code, 0)
    const about = report.checks.filter(({ id }) => id === 'forwarding' || id === 'route-to-servers')
    assert.ok(
      about.every(({ status }) => status === 'ok'),
      JSON.stringify(about),
    )
    assert.match(about.map(({ what }) => what).join('\n'), /10\.0\.9\.0\/24 by the bridge x-br/)
  } finally {
    await running.stop()
    await bridged.close()
  }
})
