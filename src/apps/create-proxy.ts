import { LimpidError } from '../errors.ts'
import type { App } from '../proxy/app.ts'
import { TransparentProxy } from '../proxy/proxy.ts'
import type { ProgramConfig } from './define-config.ts'
import { DnsApp } from './dns/app.ts'
import { LearntNames } from './dns/learnt.ts'
import { HttpApp } from './http/app.ts'

/** The proxy of a config (see defineConfig, parseConfig). Call `listen()`; flow records come as `flow` events. */
export function createProxy(config: ProgramConfig, learnt = new LearntNames()): TransparentProxy {
  if (config?.limits === undefined || config.rules === undefined) {
    throw new LimpidError('LIMPID_USAGE', 'createProxy: this configuration is not complete', {
      cure: 'pass it through defineConfig()',
    })
  }
  if (config.policyFrom !== undefined) {
    throw new LimpidError('LIMPID_USAGE', 'createProxy: policyFrom is followed by `limpid run` alone', {
      cure: 'read the policy yourself, give it as policy, and change it with usePolicy()',
    })
  }
  return new TransparentProxy(config, {
    hooks: config.hooks,
    names: learnt,
    appOf: (listener, questions) => {
      const { dns, source, to } = listener
      return dns === undefined ? undefined : new DnsApp({ dns, source, to }, { learnt, questions })
    },
    named: (hooks) =>
      new Map<string, App>([
        ['http', new HttpApp(hooks)],
        ...Object.entries(config.apps ?? {}).map(([name, streams]) => [name, { streams, stats: () => ({}) }] as const),
      ]),
  })
}
