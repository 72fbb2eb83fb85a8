import { DNS_CASES } from './dns-cases.ts'
import { DNS_SUBJECTS } from './dns-subjects.ts'
import { HOOK_CASES } from './hook-cases.ts'
import { HOOK_SUBJECTS } from './hook-subjects.ts'
import { MEMORY_CASES } from './memory-cases.ts'
import { forwarding, kindOf } from './on-topology.ts'
import { RULES_CASES } from './rules-cases.ts'
import { SNI_CASES } from './sni-cases.ts'
import { SNI_SUBJECTS } from './sni-subjects.ts'
import { KERNEL, type SubjectKind, type Suite } from './suite.ts'
import { BYPASS_CASES, TCP_CASES, WORKERS_CASES } from './tcp-cases.ts'
import { BYPASS_SUBJECTS, limpid, MEMORY_SUBJECTS, TCP_SUBJECTS, WORKERS_SUBJECTS } from './tcp-subjects.ts'
import { UDP_CASES } from './udp-cases.ts'
import { UDP_SUBJECTS } from './udp-subjects.ts'

/** All that is measured, in order. Of the comparisons the first is between those that do the same job. */
export const SUITES: readonly Suite[] = [
  {
    name: 'tcp',
    subjects: TCP_SUBJECTS,
    comparisons: [
      ['limpid', 'haproxy'],
      ['limpid', 'haproxy-splice'],
    ],
    cases: TCP_CASES,
  },
  {
    name: 'memory',
    subjects: MEMORY_SUBJECTS,
    isFresh: true,
    comparisons: [['limpid', 'haproxy']],
    cases: MEMORY_CASES,
  },
  {
    name: 'workers',
    subjects: WORKERS_SUBJECTS,
    comparisons: [['limpid-2', 'haproxy-2']],
    cases: WORKERS_CASES,
  },
  {
    name: 'bypass',
    subjects: BYPASS_SUBJECTS,
    comparisons: [['limpid-bypass', KERNEL]],
    cases: BYPASS_CASES,
  },
  {
    name: 'policy',
    subjects: SNI_SUBJECTS,
    comparisons: [
      ['limpid', 'haproxy'],
      ['limpid', 'nginx'],
    ],
    cases: SNI_CASES,
  },
  {
    name: 'rules',
    subjects: [kindOf('limpid', async (topology) => ({ ...forwarding(topology), name: 'limpid' }))],
    comparisons: [],
    cases: RULES_CASES,
  },
  {
    name: 'hook',
    subjects: HOOK_SUBJECTS,
    comparisons: [['limpid-hook', 'limpid']],
    cases: HOOK_CASES,
  },
  {
    name: 'udp',
    subjects: UDP_SUBJECTS,
    comparisons: [
      ['limpid-none', 'nginx'],
      ['limpid', 'nginx'],
    ],
    cases: UDP_CASES,
  },
  {
    name: 'dns',
    subjects: DNS_SUBJECTS,
    comparisons: [
      ['limpid-none', 'dnsmasq'],
      ['limpid', 'dnsmasq'],
      ['limpid-relay', 'dnsmasq'],
    ],
    cases: DNS_CASES,
  },
]

/** This build against another, `program` being the other's `bin/limpid`. */
export function revisionSuite(revision: string, program: string): Suite {
  const other = `limpid@${revision}`
  const subjects: SubjectKind[] = [limpid('limpid'), limpid(other, { program })]
  return { name: 'revision', subjects, comparisons: [['limpid', other]], cases: TCP_CASES }
}
