import assert from 'node:assert/strict'
import { spawnSync } from 'node:child_process'
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { after, test } from 'node:test'
import { fileURLToPath } from 'node:url'

const LIMPID = fileURLToPath(new URL('../../bin/limpid', import.meta.url))
const folder = mkdtempSync(join(tmpdir(), 'limpid-usage-'))
after(() => rmSync(folder, { recursive: true }))

function limpid(args: readonly string[], env: Record<string, string> = {}) {
  const options = {
    encoding: 'utf8',
    timeout: 20_000,
    cwd: folder,
    env: { ...process.env, HOME: folder, ...env },
  } as const
  return spawnSync(process.execPath, [LIMPID, ...args], options)
}

const USAGE: [args: string, line: RegExp][] = [
  ['', /which command\? See `limpid --help`/],
  ['rnu', /unknown command 'rnu' \(Did you mean run\?\); see `limpid --help`/],
  ['run --intercpet tproxy', /unknown option '--intercpet' \(Did you mean --intercept\?\); see `limpid run --help`/],
  ['run --intercept', /option '--intercept <how>' argument missing/],
  [
    'run --intercept tpoxy',
    /--intercept: expected tproxy, redirect, dnat, mark or none, found "tpoxy"; did you mean "tproxy"\?/,
  ],
  ['run --intercept tproxy --ports 70000', /--ports: expected a port from 1 to 65535, .* found "70000"/],
  ['run --intercept tproxy --ports 90-80', /--ports: expected .* found "90-80"/],
  ['run --intercept tproxy --family 5', /--family: expected 4, 6 or both, found "5"/],
  ['run --intercept tproxy --source me', /--source: expected proxy, client, client-port or an address/],
  ['run --intercept tproxy --to z:70000', /--to: expected host:port/],
  ['run --intercept tproxy --listen 1.2.3:80', /--listen: expected an address and port/],
  ['run --intercept tproxy --on-down shut', /--on-down: expected open or closed, found "shut"/],
  [
    'run --intercept tproxy --bypass 10.0.0.0/8,10.0.4.2/24',
    /--bypass: expected an address or a prefix .* found "10\.0\.4\.2\/24"; did you mean "10\.0\.4\.0\/24"\?/,
  ],
  ['run --intercept tproxy --no-rules --bypass 10.0.0.0/8', /--bypass: bypass needs the kernel rules/],
  ['run --intercept none --listen 80 --to z --bypass 10.0.0.0/8', /--bypass: bypass has no meaning: no listener takes/],
  ['run --bypass 10.0.0.0/8', /--bypass is part of the quick form/],
  ['run --intercept tproxy --from lo', /--from: expected the name of a network interface other than lo/],
  ['run --intercept tproxy --drain 10', /--drain: expected a duration with its unit.* did you mean "10s"\?/],
  ['run --intercept none --listen 8080', /--to HOST:PORT is missing: with intercept none/],
  ['run --intercept none --to z:80', /--listen ADDR:PORT is missing: with intercept none/],
  ['run --intercept tproxy --from eth0,lo', /--from: .* found "lo"/],
  ['run --intercept tproxy --source 127.0.0.9', /--source: .* found "127\.0\.0\.9": no server can answer/],
  ['run --intercept tproxy --to fd00:4::2:443', /--to: .*: an IPv6 address needs brackets/],
  ['run --intercept tproxy --drain 99999h', /--drain: .* found "99999h": the longest is 24d/],
  [
    'run --intercept tproxy --family 4 --source fd00::1',
    /--family: IPv4 clients .* served: the source is an IPv6 address$/m,
  ],
  ['relay 5080 10.0.4.2:80', /HOST: .* found "10\.0\.4\.2:80": write the port as its own word/],
  ['relay -6 5080 [fd00::1]:80', /HOST: .*: write the port as its own word/],
  ['plan --intercept mark', /--ports PORT is missing: with intercept mark/],
  ['plan --intercept dnat', /--listen ADDR:PORT is missing: with intercept dnat/],
  ['plan --intercept tproxy --path lokal', /--path: expected forwarded, local or bridged, found "lokal"/],
  ['plan --intercept tproxy --backend ufw', /--backend: expected auto, nft or iptables, found "ufw"/],
  ['run --path local', /--path is part of the quick form/],
  ['plan', /or try: limpid plan --intercept tproxy/],
  ['rules install', /or try: limpid rules install --intercept tproxy/],
  ['check', /or try: limpid check FILE/],
  ['rules', /limpid rules: which of show, install, remove or diff\? See `limpid rules --help`/],
  ['run --intercept tproxy --no-rules --on-down closed', /--on-down: onDown closed needs the kernel rules/],
  ['run --ports 80', /--ports is part of the quick form, which begins with --intercept; add --intercept tproxy/],
  ['run -c x.yaml --intercept tproxy', /-c and --intercept exclude each other/],
  ['run', /no configuration: .* do not exist; name a file with -c FILE/],
  ['run extra', /too many arguments for 'run': expected 0, found 1; see/],
  ['relay', /missing required argument 'localport'/],
  ['relay 70000 z', /LOCALPORT: expected a port from 1 to 65535, found "70000"/],
  ['relay 80 z 0', /REMOTEPORT: expected a port/],
  ['relay 80 1.2.3', /HOST: expected an address or a host name, found "1\.2\.3"/],
  ['relay -L z 80 127.0.0.1', /-L: expected an IPv4 or IPv6 address, found "z"/],
  ['relay -4 -L ::1 80 127.0.0.1', /-L: .*IPv6 address is outside the family asked for/],
  ['relay --intercept-ports 80 80 127.0.0.1', /--intercept-ports needs -t/],
]

for (const [args, line] of USAGE) {
  test(`limpid ${args}: one line and exit code 2`, () => {
    const { status, stdout, stderr } = limpid(args === '' ? [] : args.split(' '), { LIMPID_CONFIG: '' })
    assert.match(stderr, line)
    assert.match(stderr, /^[^\n]+\n$/)
    assert.equal(stdout, '')
    assert.equal(status, 2)
  })
}

test('a configuration that is wrong ends run with one line and exit code 78, and check shows every problem', () => {
  const path = join(folder, 'bad.yaml')
  writeFileSync(path, 'listeners:\n  - ports: 70000\n    sorce: client\n')
  const run = limpid(['run', '-c', path])
  assert.equal(run.status, 78)
  assert.equal(
    run.stderr,
    `LIMPID_CONFIG: ${path}:2:12: expected a port from 1 to 65535, a range such as 8000-8100, or all, found 70000 (and 1 more: \`limpid check\` shows all)\n`,
  )
  const check = limpid(['check', path])
  assert.equal(check.status, 78)
  assert.equal(check.stderr.trim().split('\n').length, 2)
})

test('a file that is missing, a directory, not UTF-8 or too large is refused in one line', () => {
  const latin = join(folder, 'latin.yaml')
  const large = join(folder, 'large.yaml')
  writeFileSync(latin, Buffer.from([0x61, 0xff]))
  writeFileSync(large, Buffer.alloc(2_000_000, 0x20))
  const cases: [string, RegExp][] = [
    [join(folder, 'gone.yaml'), /there is no such file/],
    [folder, /it is a directory/],
    [latin, /it is not UTF-8/],
    [large, /2000000 bytes are more than 1048576/],
    ['/dev/zero', /more than 1048576 bytes/],
  ]
  for (const [path, why] of cases) {
    const { status, stderr } = limpid(['check', path])
    assert.match(stderr, /^LIMPID_CONFIG: [^\n]+\n$/)
    assert.match(stderr, why)
    assert.equal(status, 78)
  }
})

test('the configuration is found by flag, then $LIMPID_CONFIG, then $XDG_CONFIG_HOME', () => {
  const named = join(folder, 'named.yaml')
  writeFileSync(named, 'listeners: [{}, {}]')
  assert.match(limpid(['check'], { LIMPID_CONFIG: named }).stdout, /named\.yaml: good, 2 listeners/)
  assert.match(limpid(['check', named], { LIMPID_CONFIG: '/nowhere' }).stdout, /named\.yaml: good/)
})

test('check --json prints what would be run, and check --schema a JSON Schema', () => {
  const path = join(folder, 'good.yaml')
  writeFileSync(path, 'listeners: [{ ports: 80 }]')
  const config = JSON.parse(limpid(['check', '--json', path]).stdout) as { listeners: { match: unknown }[] }
  assert.deepEqual(config.listeners[0]?.match, {
    interfaces: [],
    sources: [],
    destinations: [],
    ports: [{ from: 80, to: 80 }],
    uids: [],
    cgroups: [],
    fwmarks: [],
  })
  const schema = JSON.parse(limpid(['check', '--schema']).stdout) as { properties: object; $schema: string }
  assert.deepEqual(Object.keys(schema.properties), [
    'listeners',
    'forwards',
    'bypass',
    'policy',
    'nats',
    'policyFrom',
    'records',
    'workers',
    'ioUring',
    'limits',
    'rules',
  ])
})

test('help and version go to stdout and exit 0, without colour off a terminal', () => {
  for (const args of [
    ['--help'],
    ['help', 'run'],
    ['run', '--help'],
    ['version'],
    ['--version'],
    ['version', '--json'],
  ]) {
    const { status, stdout, stderr } = limpid(args)
    assert.equal(status, 0, args.join(' '))
    assert.equal(stderr, '')
    assert.notEqual(stdout, '')
    assert.ok(!stdout.includes('\x1b'))
  }
})

test('a reader that has had enough ends the command quietly', () => {
  const path = join(folder, 'many.yaml')
  writeFileSync(
    path,
    `listeners:\n${Array.from({ length: 250 }, (_, i) => `  - { name: l${i}, ports: ${i + 1} }\n`).join('')}`,
  )
  const line = `'${process.execPath}' '${LIMPID}' check --json '${path}' | true`
  const { status, stderr } = spawnSync('bash', ['-o', 'pipefail', '-c', line], { encoding: 'utf8' })
  assert.deepEqual({ status, stderr }, { status: 0, stderr: '' })
})

test('output that cannot be written fails the command whose output is the point', () => {
  for (const args of ['version', 'plan --intercept tproxy', 'check --schema']) {
    const line = `'${LIMPID}' ${args} >/dev/full`
    const { status, stderr } = spawnSync('bash', ['-c', line], { encoding: 'utf8', timeout: 20_000 })
    assert.match(stderr, /^limpid: cannot write to stdout: ENOSPC\n$/, line)
    assert.equal(status, 1, line)
  }
})

test('check tells of a listener that never gets a flow, and finds the file good', () => {
  const path = join(folder, 'same.yaml')
  writeFileSync(path, 'listeners: [{ name: a, ports: [80, 443] }, { name: b, ports: [443, 80] }]')
  const { status, stderr } = limpid(['check', path])
  assert.equal(stderr, 'note: listener b never gets a flow: listener a, before it, matches the same\n')
  assert.equal(status, 0)
})

test('run --help ends with what the signals do', () => {
  assert.match(limpid(['run', '--help']).stdout, /\nSignals: TERM and INT [^:]*USR2 prints the\ncounters\.\n$/)
})
