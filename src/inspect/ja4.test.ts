import assert from 'node:assert/strict'
import { test } from 'node:test'
import { type Ja4Parts, ja4 } from './ja4.ts'
import { CAPTURES } from './tls-client-hello.fixture.ts'
import { probeTls } from './tls-client-hello.ts'

/** Lists of four-digit values as JA4's raw form (JA4_ro) writes them: suites, extensions, signature algorithms. */
function parts(raw: string): Ja4Parts {
  const [ciphers = [], extensions = [], signatureAlgorithms = []] = raw
    .split('_')
    .map((list) => list.split(',').flatMap((value) => (value === '' ? [] : [Number.parseInt(value, 16)])))
  return { transport: 'tcp', version: 0x0304, ciphers, extensions, firstAlpn: 'h2', signatureAlgorithms }
}

const SUITES = '1301,1302,1303,c02b,c02f,c02c,c030,cca9,cca8,c013,c014,009c,009d,002f,0035'
const KINDS = '001b,0000,0033,0010,4469,0017,002d,000d,0005,0023,0012,002b,ff01,000b,000a,0015'
const SIGNATURES = '0403,0804,0401,0503,0805,0501,0806,0601'

test("the fingerprints of FoxIO's specification and of its test captures come out", () => {
  // technical_details/JA4.md
  assert.equal(ja4(parts(`${SUITES}_${KINDS}_${SIGNATURES}`)), 't13d1516h2_8daaf6152771_e5627efa2ab1')
  assert.equal(ja4(parts(`${SUITES}_${KINDS}`)), 't13d1516h2_8daaf6152771_6d807ffa2a79')
  // python/test/testdata: badcurveball.pcap, sigalg-grease.pcapng
  const bad =
    '1301,1302,1303,c02b,c02f,c02c,c030,cca9,cca8,c013,c014,009c,009d,002f,0035,000a_0000,0017,ff01,000a,000b,0023,0010,0005,000d,0012,0033,002d,002b,001b,0015_0403,0804,0401,0503,0805,0501,0806,0601,0201'
  assert.equal(ja4(parts(bad)), 't13d1615h2_46e7e9700bed_45f260be83e2')
  const grease =
    '1301,1302,1303,c02b,c02f,c02c,c030,cca9,cca8,c013,c014,009c,009d,002f,0035_fe0d,0010,0017,0033,44cd,ff01,000a,000d,0023,002b,000b,ca34,002d,0000,0005,001b,0012_0904,0905,0906,0403,0804,0401,0503,0805,0501,0806,0601'
  assert.equal(ja4(parts(grease)), 't13d1517h2_8daaf6152771_cb7bf5808d99')
})

test('real clients have the fingerprints that others have published for them', () => {
  const published = {
    chromium: 't13d1517h2_8daaf6152771_cb7bf5808d99', // FoxIO, python/test/testdata/sigalg-grease.pcapng.json
    python: 't13d181100_85036bcba153_d41ae481755e', // FoxIO, ja4plus-mapping.csv has its form without a name
    opensslUnnamed: 't13i310900_e8f1e7e78f70_1f22a2ca17c4', // aws/s2n-tls, api/unstable/fingerprint.h
    curlHttp2: 't13d3112h2_e8f1e7e78f70_b26ce05bbdd6', // curl with OpenSSL 3.0, in many lists
  }
  for (const [client, print] of Object.entries(published)) {
    const answer = probeTls(CAPTURES[client as keyof typeof published])
    assert.equal(answer.kind === 'match' && answer.finding.ja4, print, client)
  }
})

test('the first protocol is told by its ends, in hexadecimal when they are no letters or digits', () => {
  const marks: [string | undefined, string][] = [
    [undefined, '00'],
    ['', '00'],
    ['h2', 'h2'],
    ['http/1.1', 'h1'],
    ['x', 'xx'],
    ['\xab', 'ab'],
    ['\xab\xcd', 'ad'],
    ['0\xab', '3b'],
    ['01\xab\xcd', '3d'],
    ['0\xab\xcd1', '01'],
  ]
  for (const [protocol, mark] of marks) {
    assert.equal(ja4({ ...parts(''), firstAlpn: protocol }).slice(8, 10), mark, JSON.stringify(protocol))
  }
})

test('transport, version, counts and empty lists have their marks', () => {
  assert.equal(ja4({ ...parts(''), version: undefined, firstAlpn: undefined }), 't00i000000_000000000000_000000000000')
  assert.equal(ja4({ ...parts(''), transport: 'quic' }).slice(0, 3), 'q13')
  assert.equal(ja4(parts('_0000,0010')), 't13d0002h2_000000000000_000000000000')
  const versions = { '12': 0x0303, '11': 0x0302, '10': 0x0301, s3: 0x0300, s2: 0x0002, '00': 0x7f1c }
  for (const [mark, version] of Object.entries(versions)) {
    assert.equal(ja4({ ...parts(''), version }).slice(1, 3), mark)
  }
  const many = Array.from({ length: 120 }, (_, i) => i + 1)
  assert.match(ja4({ ...parts(''), ciphers: many, extensions: many }), /^t13i9999h2_/)
})
