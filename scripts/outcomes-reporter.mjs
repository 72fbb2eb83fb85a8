// A reporter for Node's test runner: the outcome of each test as a line of JSON, { file, name, outcome, isConsequence }.

/** `outcome`: passed, failed or skipped. `isConsequence`: it failed because a test within it did. */
export default async function* outcomes(events) {
  for await (const { type, data } of events) {
    if (type !== 'test:pass' && type !== 'test:fail') continue
    const isConsequence = data.details?.error?.failureType === 'subtestsFailed'
    // a suite is no test; but when a hook of it fails, nothing else tells
    if (data.details?.type === 'suite' && (type === 'test:pass' || isConsequence)) continue
    const isSkipped = data.skip !== undefined && data.skip !== false
    const outcome = type === 'test:fail' ? 'failed' : isSkipped ? 'skipped' : 'passed'
    yield `${JSON.stringify({ file: data.file, name: data.name, outcome, isConsequence })}\n`
  }
}
