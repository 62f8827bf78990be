export {
  AmbientLight, BufferAttribute, BufferGeometry, Box3, Color, DataTexture, DirectionalLight, EdgesGeometry, Float32BufferAttribute, Group,
  HemisphereLight, LineBasicMaterial, LineSegments, LinearSRGBColorSpace, SRGBColorSpace, Matrix4, Mesh,
  MeshBasicMaterial, MeshNormalMaterial, MeshStandardMaterial, PerspectiveCamera, PlaneGeometry, Quaternion, Raycaster,
  Scene, Sphere, Texture, TextureLoader, Vector2, Vector3, WebGLRenderer, WebGLRenderTarget, DoubleSide, FrontSide, NoToneMapping,
  WireframeGeometry,
} from 'three';
export { OrbitControls } from 'three/addons/controls/OrbitControls.js';
export { GLTFLoader } from 'three/addons/loaders/GLTFLoader.js';
