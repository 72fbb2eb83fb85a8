import type { Config, ListenerConfig } from '../config/types.ts'
import { hostFacts } from '../sys/host.ts'
import { mustRun } from '../sys/program.ts'
import { configOf, FAMILIES, type InstalledRules } from './gateway.fixture.ts'
import { planRuleset } from './plan.ts'
import { ipRuleArgs, routeArgs } from './policy-routing.ts'
import type { Script } from './script.ts'

/** The rules of nft for these listeners, or for a whole config, with their ip rules and routes. */
export async function installRules(...listeners: readonly ListenerConfig[]): Promise<InstalledRules> {
  return await installConfig(configOf(...listeners))
}

export async function installConfig(config: Config): Promise<InstalledRules> {
  const plan = planRuleset(config, hostFacts(), { backend: 'nft' })
  const load = async (scripts: readonly Script[]) => {
    await mustRun('nft', ['-f', '-'], { input: scripts.map(({ text }) => text).join('') })
  }
  const remove = async (scripts: readonly Script[]) => {
    await mustRun('nft', ['-f', '-'], { input: scripts.map(({ name }) => `delete table ${name}\n`).join('') })
  }
  const changeRouting = async (verb: 'add' | 'del') => {
    for (const family of FAMILIES) {
      const lines = [
        ...plan.ipRules
          .filter((rule) => rule.family === family)
          .map((rule) => `rule ${verb} ${ipRuleArgs(rule).join(' ')}`),
        ...plan.routes
          .filter((route) => route.family === family)
          .map((route) => `route ${verb} ${routeArgs(route).join(' ')}`),
      ]
      await mustRun('ip', [`-${family}`, '-batch', '-'], { input: lines.join('\n') })
    }
  }
  await load(plan.guard)
  await changeRouting('add')
  await load(plan.main)
  let main = plan.main
  const removeMain = async () => {
    await remove(main)
    if (main.length > 0) await changeRouting('del')
    main = []
  }
  return {
    removeMain,
    [Symbol.asyncDispose]: async () => {
      await removeMain()
      await remove(plan.guard)
    },
  }
}
