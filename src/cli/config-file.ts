import type { ProgramConfig } from '../apps/define-config.ts'
import { CONFIG_NAMES, configFolders, findConfig, isProgramFile, readConfig } from '../config/find.ts'
import type { ParseOptions } from '../config/parse.ts'
import { LimpidError } from '../errors.ts'
import { hostFamilies } from './host-families.ts'

/**
 * The configuration file of this invocation. `otherwise`: a command line that does without one.
 * @throws LimpidError LIMPID_USAGE when there is none.
 */
export function configFile(flag: string | undefined, otherwise: string): string {
  const path = findConfig(flag, process.env)
  if (path !== undefined) return path
  throw new LimpidError(
    'LIMPID_USAGE',
    `no configuration: ${CONFIG_NAMES.join(', ')} in ${configFolders(process.env).join(' and ')} do not exist`,
    {
      cure: `name a file with -c FILE, or try: ${otherwise}`,
    },
  )
}

interface LoadOptions extends Omit<ParseOptions, 'hostFamilies'> {
  /** See readConfig(). */
  readonly decides?: boolean
  /** In a thread: this process relays meanwhile. */
  readonly apart?: boolean
}

/** Reads and checks it. The YAML parser and the schema are loaded only here. @throws ConfigError */
export async function loadConfig(
  path: string,
  { decides, apart = false, ...options }: LoadOptions = {},
): Promise<ProgramConfig> {
  if (isProgramFile(path)) {
    const { loadProgram } = await import('../apps/program-file.ts')
    return await loadProgram(path)
  }
  const text = readConfig(path, { decides: decides ?? true })
  if (apart) {
    const { parseConfigApart } = await import('../config/apart.ts')
    return await parseConfigApart(text, path, { ...options, hostFamilies: hostFamilies() })
  }
  const { parseConfig } = await import('../config/parse.ts')
  return parseConfig(text, path, { ...options, hostFamilies: hostFamilies() })
}
