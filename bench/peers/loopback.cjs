// Has servers that name no address listen on loopback alone. Loaded before a gateway that has no option for it.
const { Server } = require("node:net");

const listen = Server.prototype.listen;
Server.prototype.listen = function (first, ...rest) {
  if (typeof first === "object" && first !== null && "port" in first) {
    return listen.call(this, { ...first, host: "127.0.0.1" }, ...rest);
  }
  if (typeof first === "number") {
    const callback = rest.find((part) => typeof part === "function");
    return listen.call(this, { port: first, host: "127.0.0.1" }, callback);
  }
  return listen.call(this, first, ...rest);
};
