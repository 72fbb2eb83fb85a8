import type { PolicyMatch } from '../config/policy-types.ts'

/** Matches every flow. */
export const EVERY_FLOW: PolicyMatch = {
  listeners: [],
  sources: [],
  destinations: [],
  ports: [],
  protocols: [],
  interfaces: [],
  macs: [],
  detected: [],
  hosts: [],
  lists: [],
  times: [],
}
