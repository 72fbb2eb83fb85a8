import { DNS_CASES } from './dns-cases.ts'
import { DNS_SUBJECTS } from './dns-subjects.ts'
import type { Suite } from './suite.ts'
import { TCP_CASES } from './tcp-cases.ts'
import { TCP_SUBJECTS } from './tcp-subjects.ts'
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
