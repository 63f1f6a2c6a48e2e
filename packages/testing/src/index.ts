export { type FakeClock, fakeClock } from './fake-clock.js';
export { type IssuedMaterial, IssuedSource } from './issued-source.js';
export { type Mesh, type MeshOptions, type MeshServiceOptions, mesh } from './mesh.js';
export {
  type RegistryConformanceOptions,
  type RegistryHarness,
  registryConformance,
  type TestFramework,
} from './registry-conformance.js';
