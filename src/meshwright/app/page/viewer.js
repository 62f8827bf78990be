// The 3D view: a mesh, the cameras of its pictures, and a picture laid over the render by its own camera.

import {
  AmbientLight, BufferGeometry, Box3, Color, DirectionalLight, DoubleSide, Float32BufferAttribute, Group, LineBasicMaterial,
  LineSegments, Matrix4, Mesh, MeshBasicMaterial, MeshNormalMaterial, MeshStandardMaterial, PerspectiveCamera, Quaternion,
  Raycaster, Scene, SRGBColorSpace, TextureLoader, Vector2, Vector3, WebGLRenderer, GLTFLoader, OrbitControls,
} from "./vendor/three.js";
import { still } from "./dom.js";

const FLIGHT_MS = 650;
const FOV_DEG = 35;
// While something moves, frames that take longer than SLOW_MS (on average) are drawn with fewer pixels, down to the share
// COARSEST of the width; when all has stood still for REST_MS, one sharp frame follows.
const SLOW_MS = 30, COARSEST = 0.35, REST_MS = 200;

export class Viewer {
  constructor(stage, { onView = () => {} } = {}) {
    this.stage = stage;
    this.onView = onView;
    this.renderer = new WebGLRenderer({ antialias: true, alpha: true, preserveDrawingBuffer: false });
    this.renderer.outputColorSpace = SRGBColorSpace;
    this.sharpness = 1;
    this.pace_ms = 0;
    this.#sharpen(1);
    this.canvas = this.renderer.domElement;
    this.canvas.tabIndex = 0;
    this.canvas.setAttribute("role", "img");
    this.canvas.setAttribute("aria-label", "3D view of the mesh. Arrow keys turn it, plus and minus zoom.");
    stage.prepend(this.canvas);
    this.scene = new Scene();
    this.camera = new PerspectiveCamera(FOV_DEG, 1, 0.01, 100);
    this.camera.position.set(2.2, 1.4, 3.2);
    this.light = new DirectionalLight(0xffffff, 2.2);
    this.scene.add(new AmbientLight(0xffffff, 1.1), this.light);
    // Worlds have z up, files y up: cameras hang in a group that is turned as the exporter turns meshes.
    this.world = new Group();
    this.world.rotation.x = -Math.PI / 2;
    this.scene.add(this.world);
    this.controls = new OrbitControls(this.camera, this.canvas);
    this.controls.enableDamping = !still();
    this.controls.dampingFactor = 0.12;
    this.controls.autoRotateSpeed = 1.6;
    this.controls.addEventListener("change", () => this.draw());
    this.controls.addEventListener("start", () => this.leavePicture());
    this.meshes = new Map();
    this.mode = "unlit";
    this.wire = false;
    this.views = [];
    this.posed = null;
    this.flight = null;
    this.framed = false;
    this.frames = 0;
    this.canvas.addEventListener("pointerdown", (event) => { this.pressed = [event.clientX, event.clientY]; });
    this.canvas.addEventListener("pointerup", (event) => this.#click(event));
    this.canvas.addEventListener("keydown", (event) => this.#key(event));
    this.resizer = new ResizeObserver(() => this.#resize());
    this.resizer.observe(stage);
    this.#resize();
    this.#tick();
  }

  dispose() {
    cancelAnimationFrame(this.request);
    this.resizer.disconnect();
    this.controls.dispose();
    this.renderer.dispose();
    this.renderer.forceContextLoss();
    this.canvas.remove();
  }

  draw() { this.dirty = true; }

  // Load a GLB under a name ("start", "mesh") and show it.
  async load(name, url) {
    const gltf = await new GLTFLoader().loadAsync(url);
    const parts = [];
    gltf.scene.traverse((part) => { if (part.isMesh) parts.push(part); });
    for (const part of parts) {
      const { map, vertexColors } = part.material;
      if (map) map.anisotropy = this.renderer.capabilities.getMaxAnisotropy();
      const plain = map || vertexColors ? 0xffffff : 0xb9bcc9;
      if (!part.geometry.attributes.normal) part.geometry.computeVertexNormals();
      const shared = { side: DoubleSide };
      part.userData.materials = {
        unlit: map || vertexColors ? new MeshBasicMaterial({ map, vertexColors, color: plain, ...shared }) : new MeshStandardMaterial({ color: plain, roughness: 0.9, ...shared }),
        lit: new MeshStandardMaterial({ map, vertexColors, color: plain, roughness: 0.85, metalness: 0, ...shared }),
        normals: new MeshNormalMaterial(shared),
      };
      // Lines lie a little nearer than the surface they belong to.
      const wire = new Mesh(part.geometry, new MeshBasicMaterial({ color: 0x16161d, wireframe: true, transparent: true, opacity: 0.35, depthTest: true, polygonOffset: true, polygonOffsetFactor: -1, polygonOffsetUnits: -1 }));
      part.userData.wire = wire;
      wire.visible = false;
      part.add(wire);
    }
    const before = this.meshes.get(name);
    if (before) this.scene.remove(before.scene);
    this.scene.add(gltf.scene);
    this.meshes.set(name, { scene: gltf.scene, parts });
    this.show(name);
    if (!this.framed) this.frame();
    return parts.reduce((sum, part) => sum + (part.geometry.index?.count ?? part.geometry.attributes.position.count) / 3, 0);
  }

  show(name) {
    this.shown = name;
    for (const [other, { scene }] of this.meshes) scene.visible = other === name;
    this.#dress();
  }

  setMode(mode) { this.mode = mode; this.#dress(); }
  setWire(on) { this.wire = on; this.#dress(); }
  setTurning(on) { this.leavePicture(); this.controls.autoRotate = on; this.draw(); }
  setCameras(on) { this.camerasOn = on; for (const view of this.views) view.group.visible = on && this.posed === null; this.draw(); }

  #dress() {
    for (const { parts } of this.meshes.values()) {
      for (const part of parts) {
        part.material = part.userData.materials[this.mode];
        part.userData.wire.visible = this.wire;
      }
    }
    this.draw();
  }

  // Look at all of the mesh, from the side of the first picture if there is one.
  frame() {
    const box = new Box3();
    for (const { scene } of this.meshes.values()) if (scene.visible) box.expandByObject(scene);
    if (box.isEmpty()) return;
    const centre = box.getCenter(new Vector3());
    const radius = box.getSize(new Vector3()).length() / 2;
    const aspect = Math.min(1, this.camera.aspect);
    const distance = 1.3 * radius / Math.sin((FOV_DEG / 2) * Math.PI / 180) / aspect;
    const side = this.views.length > 0 ? this.views[0].position.clone().sub(centre).normalize() : new Vector3(0.5, 0.3, 0.8).normalize();
    side.applyAxisAngle(new Vector3(0, 1, 0), 0.3);
    side.y = Math.max(side.y, 0.42);
    this.controls.target.copy(centre);
    this.camera.position.copy(centre).addScaledVector(side.normalize(), distance);
    this.camera.near = distance / 100;
    this.camera.far = distance * 30;
    this.camera.updateProjectionMatrix();
    this.controls.minDistance = radius * 0.2;
    this.controls.maxDistance = distance * 6;
    this.radius = radius;
    this.framed = true;
    this.controls.update();
    this.draw();
  }

  // Show the cameras of views.json as small pyramids with their pictures.
  setViews(document_, urlOf) {
    for (const view of this.views) this.world.remove(view.group);
    this.scene.updateMatrixWorld(true);
    this.views = document_.views.map((entry, number) => {
      const matrix = new Matrix4().fromArray(entry.T_world_camera).transpose();
      const inFile = this.world.matrixWorld.clone().multiply(matrix);
      const position = new Vector3().setFromMatrixPosition(inFile);
      const depth = 0.085 * Math.max(1e-6, new Vector3().setFromMatrixPosition(matrix).length());
      const [fx, fy, cx, cy] = entry.intrinsics;
      const corner = (u, v) => [depth * (u - cx) / fx, -depth * (v - cy) / fy, -depth];
      const corners = [corner(0, 0), corner(1, 0), corner(1, 1), corner(0, 1)];
      const lines = [];
      for (let i = 0; i < 4; i++) lines.push(0, 0, 0, ...corners[i], ...corners[i], ...corners[(i + 1) % 4]);
      const edges = new BufferGeometry();
      edges.setAttribute("position", new Float32BufferAttribute(lines, 3));
      const plane = new BufferGeometry();
      plane.setAttribute("position", new Float32BufferAttribute([corners[0], corners[3], corners[2], corners[1]].flat(), 3));
      plane.setAttribute("uv", new Float32BufferAttribute([0, 1, 0, 0, 1, 0, 1, 1], 2));
      plane.setIndex([0, 1, 2, 0, 2, 3]);
      const texture = new TextureLoader().load(urlOf(entry.file), () => this.draw());
      texture.colorSpace = SRGBColorSpace;
      const picture = new Mesh(plane, new MeshBasicMaterial({ map: texture, side: DoubleSide }));
      picture.userData.number = number;
      const group = new Group();
      group.add(new LineSegments(edges, new LineBasicMaterial({ color: 0x6d64e8 })), picture);
      group.matrix.copy(matrix);
      group.matrixAutoUpdate = false;
      group.visible = this.camerasOn !== false;
      this.world.add(group);
      return { entry, group, picture, position, matrix: inFile };
    });
    this.draw();
  }

  // Fly to the camera of a picture and look with it: exactly its frustum, fitted into the stage.
  enterPicture(number) {
    const view = this.views[number];
    if (!view) return;
    this.controls.autoRotate = false;
    const target = { position: view.position.clone(), quaternion: new Quaternion().setFromRotationMatrix(view.matrix) };
    const from = { position: this.camera.position.clone(), quaternion: this.camera.quaternion.clone() };
    this.returning ??= { position: from.position.clone(), target: this.controls.target.clone() };
    this.posed = number;
    this.controls.enabled = true;
    const arrive = () => { this.flight = null; this.onView(number); this.draw(); };
    for (const other of this.views) other.group.visible = false;
    if (still()) { this.camera.position.copy(target.position); this.camera.quaternion.copy(target.quaternion); arrive(); return; }
    const started = performance.now();
    this.flight = (now) => {
      const t = Math.min(1, (now - started) / FLIGHT_MS);
      const eased = t * t * (3 - 2 * t);
      // About the target, not through the object: direction and distance are blended apart.
      const centre = this.controls.target;
      const a = from.position.clone().sub(centre), b = target.position.clone().sub(centre);
      const length = a.length() + (b.length() - a.length()) * eased;
      const turn = new Quaternion().setFromUnitVectors(a.clone().normalize(), b.clone().normalize());
      const part = new Quaternion().slerp(turn, eased);
      this.camera.position.copy(a.normalize().applyQuaternion(part).multiplyScalar(length).add(centre));
      this.camera.quaternion.slerpQuaternions(from.quaternion, target.quaternion, eased);
      this.draw();
      if (t === 1) { this.camera.position.copy(target.position); arrive(); }
    };
  }

  leavePicture() {
    if (this.posed === null) return;
    this.posed = null;
    this.flight = null;
    this.camera.updateProjectionMatrix();
    if (this.returning) {
      this.camera.position.copy(this.returning.position);
      this.controls.target.copy(this.returning.target);
      this.returning = null;
    }
    this.setCameras(this.camerasOn !== false);
    this.controls.update();
    this.onView(null);
  }

  // Where the picture lies on the stage, in CSS pixels.
  pictureRect() {
    const { width, height } = this.views[this.posed].entry;
    const room = { width: this.stage.clientWidth, height: this.stage.clientHeight };
    const scale = Math.min(room.width / width, Math.max(120, room.height - 124) / height);
    return { left: (room.width - width * scale) / 2, top: Math.max(0, (room.height - 124 - height * scale) / 2) + 62, width: width * scale, height: height * scale };
  }

  #project() {
    const [fx, fy, cx, cy] = this.views[this.posed].entry.intrinsics;
    const rect = this.pictureRect();
    const { near, far } = this.camera;
    const u = (x) => (x - rect.left) / rect.width, v = (y) => (y - rect.top) / rect.height;
    const left = near * (u(0) - cx) / fx, right = near * (u(this.stage.clientWidth) - cx) / fx;
    const top = -near * (v(0) - cy) / fy, bottom = -near * (v(this.stage.clientHeight) - cy) / fy;
    this.camera.projectionMatrix.makePerspective(left, right, top, bottom, near, far);
    this.camera.projectionMatrixInverse.copy(this.camera.projectionMatrix).invert();
  }

  // Cameras between the eye and the mesh would hide it.
  #clearTheSight() {
    if (this.posed !== null || this.camerasOn === false) return;
    const axis = this.controls.target.clone().sub(this.camera.position);
    const far = axis.length();
    const blocked = Math.asin(Math.min(0.9, 1.1 * (this.radius ?? 0) / far));
    for (const view of this.views) {
      const to = view.position.clone().sub(this.camera.position);
      view.group.visible = !(this.framed && to.length() < far && to.angleTo(axis) < blocked);
    }
  }

  #tick() {
    this.request = requestAnimationFrame((now) => {
      if (this.flight) this.flight(now);
      else if (this.posed === null) this.controls.update();
      if (this.controls.autoRotate || this.spinning) this.dirty = true;
      if (!this.dirty) {
        this.moving = false;
        this.pace_ms = 0;
        if (this.sharpness < 1 && now - this.drawn_ms > REST_MS) this.#sharpen(1);
      }
      if (this.dirty) {
        this.dirty = false;
        if (this.moving) this.#keepPace(now - this.drawn_ms);
        this.moving = true;
        this.drawn_ms = now;
        this.#clearTheSight();
        if (this.posed !== null && !this.flight) this.#project();
        this.light.position.copy(this.camera.position).add(new Vector3(0, this.radius ?? 1, 0));
        this.renderer.render(this.scene, this.camera);
        this.frames += 1;
      }
      this.#tick();
    });
  }

  // Every frame but the first of a movement: ms since the one before.
  #keepPace(ms) {
    this.pace_ms = 0.6 * this.pace_ms + 0.4 * ms;
    if (this.pace_ms > SLOW_MS && this.sharpness > COARSEST) {
      this.pace_ms = 0;
      this.#sharpen(Math.max(COARSEST, 0.75 * this.sharpness));
    }
  }

  #sharpen(sharpness) {
    this.sharpness = sharpness;
    this.renderer.setPixelRatio(sharpness * Math.min(devicePixelRatio, 2));
    this.draw();
  }

  #resize() {
    const { clientWidth: width, clientHeight: height } = this.stage;
    if (width === 0 || height === 0) return;
    this.renderer.setSize(width, height, false);
    this.camera.aspect = width / height;
    this.camera.updateProjectionMatrix();
    if (this.posed !== null) this.onView(this.posed);
    this.draw();
  }

  #click(event) {
    if (!this.pressed || Math.hypot(event.clientX - this.pressed[0], event.clientY - this.pressed[1]) > 5) return;
    const box = this.canvas.getBoundingClientRect();
    const at = new Vector2(2 * (event.clientX - box.left) / box.width - 1, 1 - 2 * (event.clientY - box.top) / box.height);
    const ray = new Raycaster();
    ray.setFromCamera(at, this.camera);
    const hit = ray.intersectObjects(this.views.filter((view) => view.group.visible).map((view) => view.picture))[0];
    if (hit) this.enterPicture(hit.object.userData.number);
  }

  #key(event) {
    const turn = { ArrowLeft: [-0.12, 0], ArrowRight: [0.12, 0], ArrowUp: [0, -0.12], ArrowDown: [0, 0.12] }[event.key];
    const zoom = { "+": 0.9, "=": 0.9, "-": 1.1 }[event.key];
    if (!turn && !zoom) return;
    event.preventDefault();
    this.leavePicture();
    const offset = this.camera.position.clone().sub(this.controls.target);
    if (zoom) offset.multiplyScalar(zoom);
    if (turn) {
      offset.applyAxisAngle(new Vector3(0, 1, 0), -turn[0]);
      const sideways = new Vector3().crossVectors(offset, new Vector3(0, 1, 0)).normalize();
      const tilted = offset.clone().applyAxisAngle(sideways, -turn[1]);
      if (Math.abs(tilted.clone().normalize().y) < 0.985) offset.copy(tilted);
    }
    this.camera.position.copy(this.controls.target).add(offset);
    this.controls.update();
    this.draw();
  }
}
