export { changedKeys } from './config/changed-keys.js';
export { type ReadConfigFile, readConfigFile } from './config/config-file.js';
export { type NamedRegistryContext, namedRegistry, type Registries } from './config/named-registry.js';
export { resolveReferences } from './config/references.js';
export { unknownName } from './config/unknown-name.js';
export { type ParsedYaml, parseYaml } from './config/yaml.js';
