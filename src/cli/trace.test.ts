import assert from 'node:assert/strict'
import { spawnSync } from 'node:child_process'
import { test } from 'node:test'
import { fileURLToPath } from 'node:url'

const LIMPID = fileURLToPath(new URL('../../bin/limpid', import.meta.url))

function trace(args: string) {
  const words = ['trace', ...args.split(' '), '--intercept', 'tproxy', '--ports', '80']
  return spawnSync(process.execPath, [LIMPID, ...words], { encoding: 'utf8', timeout: 20_000 })
}

const USAGE: [args: string, line: RegExp][] = [
  ['10.0.3 10.0.4.2:80', /CLIENT: 10\.0\.3 is no address; write it as /],
  ['10.0.3.1 z:80', /DESTINATION: z:80 is neither an address nor an address with a port; write it as /],
  ['10.0.3.1 10.0.4.2:0', /DESTINATION: 10\.0\.4\.2:0 is neither/],
  ['10.0.3.1 fd00::1', /10\.0\.3\.1 cannot dial fd00::1: they are of two families/],
  ['10.0.3.1', /missing required argument 'destination'/],
  ['10.0.3.1 10.0.4.2 --protocol icmp', /--protocol.*icmp/],
  ['10.0.3.1 10.0.4.2 --uid root', /--uid: expected a number of 32 bits, found "root"/],
  ['10.0.3.1 10.0.4.2 --live --timeout 5', /--timeout: expected a duration with its unit/],
]

for (const [args, line] of USAGE) {
  test(`limpid trace ${args}: one line and exit code 2`, () => {
    const { status, stdout, stderr } = trace(args)
    assert.match(stderr, line)
    assert.match(stderr, /^[^\n]+\n$/)
    assert.equal(stdout, '')
    assert.equal(status, 2)
  })
}

test('--json keeps its shape, and 3 is the exit code of a flow that is not taken', () => {
  const { status, stdout } = trace('192.0.2.1 127.0.0.9:80 --json')
  assert.equal(status, 3)
  const report = JSON.parse(stdout)
  assert.deepEqual(Object.keys(report), ['format', 'flow', 'predicted', 'missed', 'live', 'asConfigured'])
  const predicted = ['takenBy', 'rules', 'mark', 'served', 'outcome', 'fate', 'hops']
  assert.deepEqual(Object.keys(report.predicted).toSorted(), predicted.toSorted())
  assert.deepEqual([report.format, report.live, report.asConfigured], [1, null, false])
  assert.deepEqual(report.flow.destination, { address: '127.0.0.9', port: 80 })
})
