import { configPaths, findConfig, readConfig } from '../config/find.ts'
import type { ParseOptions } from '../config/parse.ts'
import type { Config } from '../config/types.ts'
import { LimpidError } from '../errors.ts'
import { hostFamilies } from './host-families.ts'

/**
 * The configuration file of this invocation. `otherwise`: a command line that does without one.
 * @throws LimpidError LIMPID_USAGE when there is none.
 */
export function configFile(flag: string | undefined, otherwise: string): string {
  const path = findConfig(flag, process.env)
  if (path !== undefined) return path
  throw new LimpidError('LIMPID_USAGE', `no configuration: ${configPaths(process.env).join(' and ')} do not exist`, {
    cure: `name a file with -c FILE, or try: ${otherwise}`,
  })
}

/** Reads and checks it. The YAML parser and the schema are loaded only here. @throws ConfigError */
export async function loadConfig(path: string, options: Omit<ParseOptions, 'hostFamilies'> = {}): Promise<Config> {
  const text = readConfig(path)
  const { parseConfig } = await import('../config/parse.ts')
  return parseConfig(text, path, { ...options, hostFamilies: hostFamilies() })
}
