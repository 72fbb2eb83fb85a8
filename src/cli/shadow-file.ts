import { deepFreeze } from '../config/build.ts'
import type { Config } from '../config/types.ts'
import { loadConfig } from './config-file.ts'
import type { OpenedConfig } from './config-flags.ts'

/** The same with the policy of `file` as shadow policy, which is read again as well; undefined: without one. @throws ConfigError */
export async function withShadow({ config, reread }: OpenedConfig, file: string | undefined): Promise<OpenedConfig> {
  if (file === undefined) return { config, reread }
  const apps = Object.keys(config.apps ?? {})
  const shadowed = async (one: Config, { listeners }: Config, apart: boolean): Promise<Config> => {
    const policyListeners = listeners.map(({ name }) => name)
    const { withSharedPolicy } = await import('./shared-policy.ts') // brings the YAML parser with it
    const { policy } = withSharedPolicy(await loadConfig(file, { policyAlone: true, policyListeners, apps, apart }))
    return deepFreeze({ ...one, shadow: policy })
  }
  return {
    config: await shadowed(config, config, false),
    reread: async (running) => await shadowed(reread === undefined ? config : await reread(running), running, true),
  }
}
