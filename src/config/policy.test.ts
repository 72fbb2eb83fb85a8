import assert from 'node:assert/strict'
import { test } from 'node:test'
import { parseConfig } from './parse.ts'
import { NO_POLICY } from './policy.ts'

const LISTENER = 'listeners: [{ name: web }]\n'

function problemsOf(policy: string): readonly string[] {
  try {
    parseConfig(`${LISTENER}policy:\n${policy}`, 'limpid.yaml')
    return []
  } catch (error) {
    return (error as { problems: readonly string[] }).problems
  }
}

test('a policy is complete when it is read', () => {
  const { policy } = parseConfig(
    `${LISTENER}policy:
  lists: { ads: /etc/limpid/ads.txt }
  rules:
    - { hosts: [.example.org, 'ads*.example'], lists: [ads], then: reject, by: forbidden }
    - { name: office, times: mon-fri 08:00-18:00, ports: 8000-8100, then: forward, to: '[fd00::9]:443', source: proxy }
    - { destinations: 10.8.0.0/16, then: bypass }
  otherwise: { then: reject }
`,
    'limpid.yaml',
  )
  assert.deepEqual(
    policy.rules.map(({ name, decision }) => [name, decision]),
    [
      ['rule-1', { kind: 'reject', rejection: 'forbidden' }],
      ['office', { kind: 'forward', to: { address: 'fd00::9', port: 443 }, source: 'proxy' }],
      ['rule-3', { kind: 'bypass', forMs: 3_600_000 }],
    ],
  )
  assert.deepEqual(policy.otherwise, { kind: 'reject', rejection: 'reset' })
  assert.deepEqual(policy.peek, NO_POLICY.peek)
})

test('a list lies where the file says, which is told from the folder that the file is in', () => {
  const listsOf = (fileName: string) =>
    parseConfig(`${LISTENER}policy: { lists: { ads: ads.txt, bad: /srv/bad } }`, fileName).policy.lists
  assert.deepEqual(listsOf('/etc/limpid/limpid.yaml'), { ads: '/etc/limpid/ads.txt', bad: '/srv/bad' })
  assert.deepEqual(listsOf('limpid.yaml'), { ads: 'ads.txt', bad: '/srv/bad' })
})

test('one name of a list or listener needs no brackets', () => {
  const { rules } = parseConfig(
    `${LISTENER}policy: { lists: { ads: /srv/ads }, rules: [{ lists: ads, listeners: web, then: reject }] }`,
    'limpid.yaml',
  ).policy
  assert.deepEqual([rules[0]!.match.lists, rules[0]!.match.listeners], [['ads'], ['web']])
  assert.match(problemsOf('  rules: [{ lists: 5, then: reject }]')[0]!, /expected a name that `lists`.*found 5/)
  assert.match(problemsOf('  rules: [{ lists: [a b], then: reject }]')[0]!, /expected a name of at most 32/)
})

test('without one every flow is forwarded', () => {
  assert.equal(parseConfig(LISTENER, 'limpid.yaml').policy, NO_POLICY)
})

test('what makes no sense is told with its place', () => {
  assert.match(
    problemsOf('  rules: [{ hosts: 10.0.0.1, then: reject }]')[0]!,
    /limpid\.yaml:3:20: expected a name.*addresses belong to "destinations"/,
  )
  assert.match(problemsOf('  rules: [{ then: reject, to: 10.0.0.1 }]')[0]!, /"to" has no meaning with then reject/)
  assert.match(problemsOf('  rules: [{ then: forward, for: 1h }]')[0]!, /"for" has no meaning with then forward/)
  assert.match(problemsOf('  rules: [{ listeners: [mail], then: reject }]')[0]!, /expected web, found "mail"/)
  assert.match(
    problemsOf('  rules: [{ lists: [ads], then: reject }]')[0]!,
    /expected a name of the policy's own key "lists", which has none, found "ads"/,
  )
  assert.match(problemsOf('  rules: [{ then: rejct }]')[0]!, /did you mean "reject"\?/)
  assert.match(problemsOf('  rules: [{ then: deny }]')[0]!, /did you mean "reject"\?/)
  assert.match(problemsOf('  rules: [{ then: allow }]')[0]!, /did you mean "forward"\?/)
  assert.match(problemsOf('  rules: [{ action: reject }]').join(), /found "action"; did you mean "then"\?/)
  assert.match(problemsOf('  rules: [{ detected: htttp1, then: reject }]')[0]!, /did you mean "http1"\?/)
  assert.match(problemsOf('  rules: [{ times: 8-18, then: reject }]')[0]!, /expected days, a time of day, or both/)
  assert.match(problemsOf('  rules: [{ name: a, then: reject }, { name: a, then: reject }]')[0]!, /"a" is used twice/)
  assert.match(
    problemsOf('  rules: [{ hosts: a.example, destinations: 10.0.0.1, then: bypass }]')[0]!,
    /"hosts" has no meaning with then bypass/,
  )
  assert.match(problemsOf('  rules: [{ then: bypass }]')[0]!, /expected "destinations"/)
  assert.match(problemsOf('  rules: [{ host: a.example, then: reject }]')[0]!, /did you mean "hosts"\?/)
  assert.match(
    problemsOf('  rules: [{ then: forward, to: 10.0.0.9, source: fd00::1 }]')[0]!,
    /expected an IPv6 address/,
  )
})
