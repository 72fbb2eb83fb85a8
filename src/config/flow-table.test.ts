import assert from 'node:assert/strict'
import { test } from 'node:test'
import { parseFlowTable } from './flow-table.ts'
import { POLICY_THEN } from './policy-values.ts'

const NOW = new Date('2026-01-05T10:30')

function expectation(expect: string): string {
  const text = `- { client: 10.0.3.1, dst: "10.0.4.2:80", expect: ${expect} }`
  return parseFlowTable(text, 'flows.yaml', NOW).flows[0]!.expect
}

test('whatever a rule may say can be expected, alone or with more of it', () => {
  for (const then of POLICY_THEN.words!) {
    assert.equal(expectation(then), then)
    assert.equal(expectation(`${then} by something`), `${then} by something`)
  }
})

test('what no rule says cannot be expected, and what may have been meant is told', () => {
  assert.throws(() => expectation('forwards'), {
    message:
      /^flows\.yaml:1:51: expected forward, via, handle, reject or bypass, .+ found "forwards"; did you mean "forward"\?/,
  })
  assert.throws(() => expectation('allow'), { message: /did you mean "forward"/ })
})
