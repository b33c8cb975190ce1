import jakarta.servlet.http.*;
import java.io.*;
import java.nio.charset.StandardCharsets;
import org.apache.catalina.*;
import org.apache.catalina.connector.Connector;
import org.apache.catalina.core.StandardContext;
import org.apache.catalina.ha.*;
import org.apache.catalina.ha.session.*;
import org.apache.catalina.ha.tcp.*;
import org.apache.catalina.startup.Tomcat;
import org.apache.catalina.tribes.group.GroupChannel;
import org.apache.catalina.tribes.group.interceptors.*;
import org.apache.catalina.tribes.membership.McastService;
import org.apache.catalina.tribes.transport.ReplicationTransmitter;
import org.apache.catalina.tribes.transport.nio.*;

/** A node with the same requests as the application that it is compared with, and the cluster of Tomcat's how-to. */
public class Node extends HttpServlet {
  static StandardContext context;
  static GroupChannel channel;
  static SimpleTcpCluster cluster;

  public static void main(String[] args) throws Exception {
    String manager = System.getProperty("manager"), base = System.getProperty("base");
    new File(base).mkdirs();
    Tomcat tomcat = new Tomcat();
    tomcat.setBaseDir(base);
    Connector connector = new Connector("HTTP/1.1");
    connector.setPort(Integer.getInteger("http"));
    connector.setProperty("address", "127.0.0.1");
    connector.setProperty("maxKeepAliveRequests", "-1");
    connector.setProperty("tcpNoDelay", "true");
    tomcat.setConnector(connector);
    context = (StandardContext) tomcat.addContext("", base);
    Tomcat.addServlet(context, "node", new Node()).setLoadOnStartup(1);
    context.addServletMappingDecoded("/", "node");
    context.setSessionTimeout(60);
    if (!manager.equals("Alone")) {
      context.setDistributable(true);
      cluster = new SimpleTcpCluster();
      cluster.setChannelSendOptions(manager.equals("DeltaAsync") ? 8 : 6);
      if (manager.equals("Backup")) {
        BackupManager template = new BackupManager();
        template.setMapSendOptions(6);
        cluster.setManagerTemplate(template);
      } else {
        DeltaManager template = new DeltaManager();
        template.setExpireSessionsOnShutdown(false);
        template.setNotifyListenersOnReplication(true);
        cluster.setManagerTemplate(template);
      }
      channel = new GroupChannel();
      NioReceiver receiver = new NioReceiver();
      receiver.setAddress("127.0.0.1");
      receiver.setPort(Integer.getInteger("link"));
      receiver.setAutoBind(100);
      receiver.setSelectorTimeout(5000);
      receiver.setMaxThreads(6);
      channel.setChannelReceiver(receiver);
      ReplicationTransmitter sender = new ReplicationTransmitter();
      sender.setTransport(new PooledParallelSender());
      channel.setChannelSender(sender);
      McastService membership = new McastService();
      membership.setAddress("228.0.0.4");
      membership.setPort(Integer.getInteger("group"));
      membership.setFrequency(500);
      membership.setDropTime(3000);
      membership.setBind("127.0.0.1");
      channel.setMembershipService(membership);
      channel.addInterceptor(new TcpFailureDetector());
      channel.addInterceptor(new MessageDispatchInterceptor());
      cluster.setChannel(channel);
      ReplicationValve valve = new ReplicationValve();
      valve.setFilter("");
      cluster.addValve(valve);
      cluster.addValve(new JvmRouteBinderValve());
      cluster.addClusterListener(new ClusterSessionListener());
      tomcat.getEngine().setCluster(cluster);
    }
    tomcat.start();
    tomcat.getServer().await();
  }

  static String padded(String value, int bytes) {
    StringBuilder padded = new StringBuilder(value).append(':');
    while (padded.length() < bytes) padded.append('x');
    return padded.toString();
  }

  static int members() {
    return channel == null ? 0 : channel.getMembers().length;
  }

  static int number(HttpServletRequest request, String key) {
    return Integer.parseInt(request.getParameter(key));
  }

  static void answer(HttpServletResponse response, int status, String text) throws IOException {
    byte[] bytes = text.getBytes(StandardCharsets.UTF_8);
    response.setStatus(status);
    response.setContentType("text/plain");
    response.setContentLength(bytes.length);
    response.getOutputStream().write(bytes);
  }

  @Override
  protected void service(HttpServletRequest request, HttpServletResponse response) throws IOException {
    switch (request.getServletPath()) {
      case "/put":
        HttpSession session = request.getSession(true);
        session.setAttribute(request.getParameter("k"), padded(request.getParameter("v"), number(request, "n")));
        answer(response, 200, request.getParameter("v"));
        return;
      case "/count":
        answer(response, 200, Integer.toString(context.getManager().getActiveSessions()));
        return;
      case "/members":
        answer(response, 200, Integer.toString(members()));
        return;
      case "/bulk":
        Manager manager = context.getManager();
        for (int n = 0; n < number(request, "n"); n++) {
          Session created = manager.createSession(null);
          for (int a = 0; a < number(request, "attrs"); a++)
            created.getSession().setAttribute("a" + a, padded(n + "-" + a, number(request, "bytes")));
          if (manager instanceof ClusterManager) {
            ClusterMessage message = ((ClusterManager) manager).requestCompleted(created.getIdInternal());
            if (message != null && members() > 0) cluster.send(message);
          }
          created.endAccess();
        }
        answer(response, 200, Integer.toString(manager.getActiveSessions()));
        return;
      default:
        answer(response, 404, "");
    }
  }
}
